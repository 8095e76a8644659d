"""Bodies of the gate's identity map."""

import re
from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.parts import PersonView, RequestBody, TextRule
from lockbox.identity.credentials import LONGEST_GATE_SUBJECT, LONGEST_ISSUER

VISIBLE = re.compile(r"[!-~]+")
PRINTABLE = re.compile(r"[!-~]([ -~]*[!-~])?")


def _issuer(value: str) -> str:
    if not VISIBLE.fullmatch(value):
        raise ValueError("write an issuer as in the catalogue, or mtls: and a service, or header: and a gateway's id")
    return value


def _subject(value: str) -> str:
    if not PRINTABLE.fullmatch(value):
        raise ValueError("write the subject exactly as the token or the gateway says it: visible ASCII characters")
    return value


class NewGateIdentity(RequestBody):
    """An identity to map to an engineer: whom the issuer calls `subject` is `person_id`."""

    issuer: Annotated[str, Field(max_length=LONGEST_ISSUER), TextRule(_issuer, r"^[!-~]+$")]
    subject: Annotated[str, Field(max_length=LONGEST_GATE_SUBJECT), TextRule(_subject, r"^[!-~]([ -~]*[!-~])?$")]
    person_id: UUID


class GateIdentityView(BaseModel):
    """A mapped identity."""

    id: UUID
    issuer: str
    subject: str
    person: PersonView
    added_by: UUID
    created_at: datetime


class GateIdentityPage(BaseModel):
    """A page of the identity map; `next_cursor` leads to the next page."""

    items: list[GateIdentityView]
    next_cursor: UUID | None
