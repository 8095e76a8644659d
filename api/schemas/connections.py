"""Bodies of connections at targets."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, Field

from api.schemas.parts import RequestBody
from connectors.credential_requests import ConnectionStatus
from connectors.scram import PATTERN


class NewCredential(RequestBody):
    """A SCRAM-SHA-256 verifier of a password that the engineer keeps: `lockbox request credential` makes both."""

    verifier: Annotated[str, Field(max_length=200, pattern=PATTERN)]


class ConnectionList(BaseModel):
    """Connections opened at targets for a request, at most a hundred; connections not closed come first."""

    items: Sequence[ConnectionStatus]
