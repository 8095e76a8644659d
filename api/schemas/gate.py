"""Bodies of the gate."""

import re
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.parts import PersonView, RequestBody
from gate.answers import GateReason
from gate.definition_records import DefinitionChange
from gate.enforcement import EnforcementOverview
from lockbox.admin.gate_probes import RecordedProbe
from lockbox.admin.outside_access import DeclaredAccess, OutsideAccess
from lockbox.facts.bounds import Resource, Word
from lockbox.identity.credentials import LONGEST_GATE_SUBJECT, LONGEST_ISSUER
from lockbox.text_rules import IS_TEXT, IS_WHOLE, Instant, TextRule

VISIBLE = re.compile(r"[!-~]+")
VISIBLE_PATTERN = r"^[!-~]+$"
MOST_CALLS = 1000
MOST_OUTSIDE_SECONDS = 7 * 24 * 3600
PRINTABLE = re.compile(r"[!-~]([ -~]*[!-~])?")


def _issuer(value: str) -> str:
    if not VISIBLE.fullmatch(value):
        raise ValueError("write an issuer as in the catalogue, or mtls: and a service, or header: and a gateway's id")
    return value


def _visible(value: str) -> str:
    if not VISIBLE.fullmatch(value):
        raise ValueError("write the gateway's address in visible ASCII characters")
    return value


def _subject(value: str) -> str:
    if not PRINTABLE.fullmatch(value):
        raise ValueError("write the subject exactly as the token or the gateway says it: visible ASCII characters")
    return value


class NewGateIdentity(RequestBody):
    """An identity to map to an engineer: `person_id` is the engineer whose name at the issuer is `subject`."""

    issuer: Annotated[str, Field(max_length=LONGEST_ISSUER), TextRule(_issuer, r"^[!-~]+$")]
    subject: Annotated[str, Field(max_length=LONGEST_GATE_SUBJECT), TextRule(_subject, r"^[!-~]([ -~]*[!-~])?$")]
    person_id: UUID


class NewGateProbe(RequestBody):
    """What a probe of the gateway in front of a service found: how many calls were refused, and how many were not."""

    service: Word
    gateway: Annotated[str, Field(min_length=1, max_length=200), TextRule(_visible, VISIBLE_PATTERN)]
    refused: Annotated[int, Field(ge=0, le=MOST_CALLS, strict=True), IS_WHOLE]
    let_through: Annotated[int, Field(ge=0, le=MOST_CALLS, strict=True), IS_WHOLE]


class GateProbeView(BaseModel):
    service: str
    gateway: str
    refused: int
    let_through: int
    at: datetime

    @classmethod
    def of(cls, recorded: RecordedProbe) -> Self:
        said = recorded.result
        return cls(
            service=said.service,
            gateway=said.gateway,
            refused=said.refused,
            let_through=said.let_through,
            at=recorded.at,
        )


class GateProbePage(BaseModel):
    """A page of recorded probes."""

    items: list[GateProbeView]
    next_cursor: UUID | None


class GateIdentityView(BaseModel):
    id: UUID
    issuer: str
    subject: str
    person: PersonView
    added_by: UUID
    created_at: datetime


class GateIdentityPage(BaseModel):
    """A page of the identity map."""

    items: list[GateIdentityView]
    next_cursor: UUID | None


class ReportConsentInput(RequestBody):
    """A tenant's consent to a gate that only reports; `revision` is the one for which the vendor asks consent."""

    revision: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True), IS_WHOLE]


class EnforcementView(EnforcementOverview):
    """What the gate of a service does: what the catalogue says, and for how many tenants the gate only reports."""


class EnforcementList(BaseModel):
    """What each gate does, sorted by service."""

    items: list[EnforcementView]


class DefinitionPartView(BaseModel):
    """A changed part of a gate's definition: what only the old one says (`before`), and only the new one (`now`)."""

    part: str
    before: str
    now: str


class GateDefinitionView(BaseModel):
    """A gate's definition, in use since `since`: how it finds a call's resource, action and caller.

    `changes` says how the previous definition differed; it is empty for the `first` one on record. While `beside` is
    true, some process of the vendor may still use the previous definition. `sha256` is the definition's hash, as in
    events.
    """

    since: datetime
    sha256: str
    first: bool
    beside: bool
    changes: list[DefinitionPartView]

    @classmethod
    def of(cls, said: DefinitionChange) -> Self:
        changes = [DefinitionPartView(part=part, before=was, now=now) for part, (was, now) in said.changes.items()]
        return cls(since=said.since, sha256=said.sha256, first=said.is_first, beside=said.is_beside, changes=changes)


class TenantGateView(BaseModel):
    """What the gate of a service does for a tenant, and whether an admin is asked to consent that it only reports.

    `last_asked_at` is when any gateway or guard of the service last asked, for whichever tenant. It is exact to the
    minute, after two hours only to the hour, and null after a month. `probe` is the newest probe that the vendor has
    recorded for the tenant.
    """

    service: str
    enforced: bool
    report_asked: bool
    revision: int
    since: datetime
    consented_at: datetime | None
    last_asked_at: datetime | None
    definition: GateDefinitionView | None
    probe: GateProbeView | None


class TenantGateList(BaseModel):
    """What each gate does for a tenant, sorted by service."""

    items: list[TenantGateView]


class NewOutsideAccess(RequestBody):
    """Access that engineers had around Lockbox, for `seconds` from `began_at` on; the access must have ended.

    Mails to the tenant leave out the `reason` where its policy keeps justifications out of mails.
    """

    engineers: Annotated[list[UUID], Field(min_length=1, max_length=20)]
    service: Word
    resources: Annotated[list[Resource], Field(min_length=1, max_length=50)]
    began_at: Instant
    seconds: Annotated[int, Field(ge=1, le=MOST_OUTSIDE_SECONDS, strict=True), IS_WHOLE]
    reason: Annotated[str, Field(max_length=2000), IS_TEXT]

    def taken(self) -> OutsideAccess:
        return OutsideAccess(self.engineers, self.service, self.resources, self.began_at, self.seconds, self.reason)


class OutsideAccessReceipt(BaseModel):
    """The id of the event that says what was declared."""

    id: UUID


class OutsideAccessView(DeclaredAccess):
    """Access around Lockbox that was declared; names that were erased are left out or null."""


class OutsideAccessList(BaseModel):
    """Access around Lockbox that was declared for a tenant, the newest first, at most fifty."""

    items: list[OutsideAccessView]


class WouldDenyCallView(BaseModel):
    """A kind of call that was let in and would be refused; `path` is null for all calls that no other item lists.

    `path` is a path of the catalogue, or else the call's own path with `{}` in place of values. `engineer` is the
    caller if known; `identity` is the issuer and subject of a caller who is mapped to no engineer. `calls` counts
    from `first_at` on.
    """

    path: str | None
    tenant: str | None
    engineer: PersonView | None
    identity: str | None
    calls: int
    first_at: datetime
    last_at: datetime


class WouldDenyReasonView(BaseModel):
    """Why calls would be refused, what to do about it, and how many there were; `kinds` lists a hundred at most."""

    reason: GateReason
    remedy: str
    calls: int
    kinds: list[WouldDenyCallView]


class GateReportView(BaseModel):
    """Calls that a service's gate let in but would have refused if it enforced, the most frequent reason first."""

    gate: EnforcementView
    days: int
    items: list[WouldDenyReasonView]
