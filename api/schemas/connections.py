"""Bodies about what is opened at targets for a request."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.parts import RequestBody
from connectors.models import ConnectionState
from connectors.scram import PATTERN


class NewCredential(RequestBody):
    """A SCRAM-SHA-256 verifier of a password that the engineer keeps: `lockbox request credential` makes both."""

    verifier: Annotated[str, Field(max_length=200, pattern=PATTERN)]


class ConnectionView(BaseModel):
    """Access at a target, as far as it has come; `role` and `address` are what the engineer signs in as, and where.

    `failing` is why the last try failed, if it did; it is tried again.
    """

    id: UUID
    kind: Literal["postgres", "webhook"]
    target: str
    state: ConnectionState
    failing: str | None
    created_at: datetime
    opened_at: datetime | None
    closed_at: datetime | None
    until: datetime
    role: str | None
    address: str | None


class ConnectionList(BaseModel):
    """What is, or was, opened at targets for a request, what is not closed first; at most a hundred."""

    items: list[ConnectionView]
