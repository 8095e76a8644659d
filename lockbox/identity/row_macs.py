"""MACs (HMAC) of rows that grant rights: make, check, scan and renew them.

Functions named after a kind of row return the parts of the row that its MAC covers.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache, partial
from operator import attrgetter
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, TextClause, text

from lockbox.database import UnitOfWork
from lockbox.identity import keyring
from lockbox.identity.credentials import BrowserSession, GateIdentity, Identity, Passkey, Token
from lockbox.identity.keyring import Part
from lockbox.identity.models import (
    Delegation,
    DirectoryRecord,
    EligibleDelegate,
    Invitation,
    LegalHold,
    Offboarding,
    ReportConsent,
    Retention,
    ServiceEnforcement,
    Tenant,
)

log = structlog.get_logger(__name__)
MOST_KEPT = 1024
CREDENTIAL_KEY_GUIDE = "see The credential key in docs/operating.md"
REMARK = text("SELECT renew_mark(:kind, :which, :old, :new, :new_hash)")
FIRST_OWNER = UUID(int=0)
SCAN_PAGE = 200
MOST_FRESH = 200
MOST_DOUBTED = 200
LATELY = timedelta(minutes=3)
REPORT = text("SELECT report_unverified(:process, :number, :first)")
FROM_BEFORE = b""
"""The MAC of tenant data that was written before such rows had MACs. Postgres lets no database login write it."""
TenantDataRow = Retention | LegalHold | Offboarding
PERSON_ID, TENANT_ID = attrgetter("person_id"), attrgetter("tenant_id")


class MarkedRowKind(StrEnum):
    MEMBERSHIP = "membership"
    PASSKEY = "passkey"
    IDENTITY = "identity"
    GATE_IDENTITY = "gate identity"
    DIRECTORY_RECORD = "directory record"
    SESSION = "session"
    TOKEN = "token"  # noqa: S105 - a word
    INVITATION = "invitation"
    DECISION = "decision"
    TENANT = "setting"
    POLICY = "policy"
    DELEGATION = "delegation"
    ELIGIBLE_DELEGATE = "eligible delegate"
    CONNECTION = "connection"
    ENFORCEMENT = "enforcement"
    REPORT_CONSENT = "consent to a report"
    PRE_APPROVAL = "pre-approval"
    PRE_APPROVAL_VOTE = "vote on a pre-approval"
    RETENTION = "retention"
    LEGAL_HOLD = "legal hold"
    OFFBOARDING = "off-boarding"


COVERED: Mapping[MarkedRowKind, Sequence[str]] = {
    MarkedRowKind.PASSKEY: ["id", "person_id", "credential_id", "public_key", "created_at", "trusted_at", "only_at"],
    MarkedRowKind.IDENTITY: ["issuer", "subject", "person_id", "created_at", "trusted_at"],
    MarkedRowKind.GATE_IDENTITY: ["id", "issuer", "subject", "person_id", "created_at"],
    MarkedRowKind.DIRECTORY_RECORD: (
        ["person_id", "employing_entity", "office_country", "physical_country", "source", "as_of"]
    ),
    MarkedRowKind.SESSION: ["id", "person_id", "secret_hash", "means", "signed_in_at", "expires_at", "only_at"],
    MarkedRowKind.TOKEN: [
        "id",
        "person_id",
        "secret_hash",
        "is_sample",
        "by_mail",
        "scopes",
        "services",
        "only_at",
        "means",
        "signed_in_at",
        "created_at",
        "expires_at",
    ],
    MarkedRowKind.DECISION: [
        "id",
        "request_id",
        "person_id",
        "decision",
        "means",
        "principals",
        "access_window",
        "resources",
        "actions",
        "max_uses",
        "assertion",
    ],
    MarkedRowKind.INVITATION: (
        [
            "id",
            "tenant_id",
            "email",
            "roles",
            "is_recovery",
            "invited_by",
            "created_at",
            "takes_effect_at",
            "expires_at",
            "code_nonce",
        ]
    ),
    MarkedRowKind.TENANT: ["id", "slug", "mode", "plan", "suspended", "policy_version", "revision"],
    MarkedRowKind.DELEGATION: [
        "id",
        "tenant_id",
        "principal_id",
        "delegate_id",
        "starts_at",
        "ends_at",
        "made_by",
        "created_at",
    ],
    MarkedRowKind.ELIGIBLE_DELEGATE: ["id", "tenant_id", "person_id"],
    MarkedRowKind.CONNECTION: ["id", "request_id", "kind", "target", "verifier", "created_at"],
    MarkedRowKind.ENFORCEMENT: ["id", "service", "wanted", "revision", "enforced_at"],
    MarkedRowKind.REPORT_CONSENT: ["id", "enforcement_id", "tenant_id", "revision", "person_id"],
    MarkedRowKind.PRE_APPROVAL: [
        "id",
        "tenant_id",
        "service",
        "resource",
        "actions",
        "reason_code",
        "access_window",
        "max_uses",
        "ends_at",
        "proposed_by",
        "proposed_at",
        "revoked_at",
    ],
    MarkedRowKind.PRE_APPROVAL_VOTE: ["id", "pre_approval_id", "person_id", "principals", "means", "decided_at"],
    MarkedRowKind.RETENTION: ["tenant_id", "days", "set_at"],
    # The MAC leaves out the reason, which is erased when the tenant has left. The reason alone blocks nothing.
    MarkedRowKind.LEGAL_HOLD: ["id", "tenant_id", "side", "set_by", "set_at", "released_by", "released_at"],
    MarkedRowKind.OFFBOARDING: ["tenant_id", "asked_by", "asked_at"],
}
"""The columns that the MAC of each kind of row covers."""
KIND_OF = {
    Retention: MarkedRowKind.RETENTION,
    LegalHold: MarkedRowKind.LEGAL_HOLD,
    Offboarding: MarkedRowKind.OFFBOARDING,
}
UNORDERED = frozenset({"scopes", "services", "principals"})


def membership(row_id: UUID, person_id: UUID, tenant_id: UUID | None, role: str) -> Sequence[Part]:
    """The MAC covers everything but the review tier, which grants nothing."""
    return (MarkedRowKind.MEMBERSHIP, row_id, person_id, tenant_id, role)


def passkey(row: Passkey) -> Sequence[Part]:
    """The MAC covers everything but the passkey's name and the columns that each use changes."""
    return _covered(MarkedRowKind.PASSKEY, row)


def identity(row: Identity) -> Sequence[Part]:
    return _covered(MarkedRowKind.IDENTITY, row)


def gate_identity(row: GateIdentity) -> Sequence[Part]:
    """The MAC covers everything but the operator who added the identity."""
    return _covered(MarkedRowKind.GATE_IDENTITY, row)


def directory_record(row: DirectoryRecord | Row[Any]) -> Sequence[Part]:
    return _covered(MarkedRowKind.DIRECTORY_RECORD, row)


def tenant(row: Tenant | Row[Any] | SimpleNamespace) -> Sequence[Part]:
    """The MAC covers everything but the tenant's name, which opens nothing."""
    return _covered(MarkedRowKind.TENANT, row)


def policy(tenant_id: UUID, version: int, body: str | Mapping[str, Any]) -> Sequence[Part]:
    return (MarkedRowKind.POLICY, tenant_id, version, _digest(body if isinstance(body, str) else json.dumps(body)))


def delegation(row: Delegation | SimpleNamespace) -> Sequence[Part]:
    """The MAC covers everything but `ended_at`, which any writer may set."""
    return _covered(MarkedRowKind.DELEGATION, row)


def eligible_delegate(row: EligibleDelegate | SimpleNamespace) -> Sequence[Part]:
    return _covered(MarkedRowKind.ELIGIBLE_DELEGATE, row)


def enforcement(row: ServiceEnforcement | Row[Any]) -> Sequence[Part]:
    return _covered(MarkedRowKind.ENFORCEMENT, row)


def report_consent(row: ReportConsent | Row[Any]) -> Sequence[Part]:
    return _covered(MarkedRowKind.REPORT_CONSENT, row)


def browser_session(row: BrowserSession | SimpleNamespace) -> Sequence[Part]:
    """The MAC covers everything but network address, user agent and last activity."""
    return _covered(MarkedRowKind.SESSION, row)


def token(row: Token | SimpleNamespace) -> Sequence[Part]:
    """The MAC covers everything but the token's name and last use."""
    return _covered(MarkedRowKind.TOKEN, row)


def invitation(row: Invitation | Row[Any]) -> Sequence[Part]:
    return _covered(MarkedRowKind.INVITATION, row)


def decision(row: object) -> Sequence[Part]:
    """The MAC covers columns that were added later only if they are set, so that earlier MACs stay valid."""
    opens_at = getattr(row, "opens_at", None)
    return (*_covered(MarkedRowKind.DECISION, row), *((opens_at,) if opens_at else ()))


def pre_approval(row: object) -> Sequence[Part]:
    return _covered(MarkedRowKind.PRE_APPROVAL, row)


def pre_approval_vote(row: object) -> Sequence[Part]:
    return _covered(MarkedRowKind.PRE_APPROVAL_VOTE, row)


def tenant_data(row: TenantDataRow) -> Sequence[Part]:
    return _covered(KIND_OF[type(row)], row)


def mark_data(session: UnitOfWork, row: TenantDataRow) -> None:
    row.mac = mark(session, tenant_data(row))


def is_from_before(row: object) -> bool:
    """Return whether a row was written before rows of its kind had MACs."""
    return isinstance(row, TenantDataRow) and row.mac == FROM_BEFORE


def is_vouched_for(session: UnitOfWork, row: TenantDataRow) -> bool:
    return is_from_before(row) or is_held(session, row.mac, tenant_data(row), row.tenant_id)


def connection(row: object) -> Sequence[Part]:
    return _covered(MarkedRowKind.CONNECTION, row)


def mark(session: UnitOfWork, parts: Sequence[Part]) -> bytes:
    return keyring.of(session).powers.mark(*parts)


def is_believed(session: UnitOfWork, mac: bytes | None, parts: Sequence[Part], which: UUID | None) -> bool:
    """Return whether a row has a valid MAC. A worker, which has no keys and grants nothing, accepts all rows."""
    return not keyring.of(session).can_check or is_held(session, mac, parts, which)


def holds(session: UnitOfWork, mac: bytes | None, parts: Sequence[Part], which: UUID | None) -> bool:
    """Return whether a row has a valid MAC; a row without one has no effect and is logged.

    `which` is the id of the row, or of its person if the row has no id. A MAC under an older key is renewed.
    """
    if not is_held(session, mac, parts, which):
        return False
    powers = keyring.of(session).powers
    if mac is not None and not powers.is_newest(mac):
        remark(session, MarkedRowKind(str(parts[0])), which, old=mac, new=powers.mark(*parts))
    return True


def is_held(session: UnitOfWork, mac: bytes | None, parts: Sequence[Part], which: UUID | None) -> bool:
    """Return whether a row has a valid MAC; the MAC is not renewed."""
    if keyring.of(session).powers.is_mark(mac, *parts):
        return True
    log.critical("power.unverified", kind=str(parts[0]), row=str(which), do=CREDENTIAL_KEY_GUIDE)
    return False


def remark(
    session: UnitOfWork,
    kind: MarkedRowKind,
    which: UUID | None,
    *,
    old: bytes,
    new: bytes,
    new_hash: bytes | None = None,
) -> None:
    """Write the MAC and the hash of the secret under the newest key, unless another process was faster."""
    values = {"kind": kind.value, "which": which, "old": old, "new": new, "new_hash": new_hash}
    session.write(REMARK, values)


def _covered(kind: MarkedRowKind, row: object) -> Sequence[Part]:
    return (kind, *(_part(row, name) for name in COVERED[kind]))


def marked_columns(kind: MarkedRowKind, of: str) -> str:
    """Return the covered columns and `mac`, for a select list with this table name or alias."""
    return ", ".join(f"{of}.{name}" for name in (*COVERED[kind], "mac"))


def _part(row: object, name: str) -> Part:
    value = getattr(row, name)
    return sorted(value) if name in UNORDERED else value


@lru_cache(maxsize=MOST_KEPT)
def _digest(body: str) -> bytes:
    """Hash the content of a JSON text, however Postgres formats it."""
    return hashlib.sha256(json.dumps(json.loads(body), sort_keys=True).encode()).digest()


@dataclass(frozen=True, order=True)
class UnverifiedRow:
    """A row that should grant, decide or bind something, but has no valid MAC and does not count.

    `whose` is the person, or the tenant for its mode, policy or delegates.
    """

    whose: UUID
    kind: MarkedRowKind

    def __str__(self) -> str:
        return f"a {self.kind} of {'tenant' if self.kind in OF_TENANTS.marked else 'person'} {self.whose}"


READ: Mapping[MarkedRowKind, tuple[str, Sequence[str]]] = {
    MarkedRowKind.MEMBERSHIP: ("memberships", ["id", "person_id", "tenant_id", "role"]),
    MarkedRowKind.POLICY: ("policies", ["tenant_id", "version", "body"]),
    MarkedRowKind.PRE_APPROVAL_VOTE: (
        "pre_approval_votes",
        [*COVERED[MarkedRowKind.PRE_APPROVAL_VOTE], "tenant_id"],
    ),
    **{
        kind: (table, COVERED[kind])
        for kind, table in (
            (MarkedRowKind.PASSKEY, "passkeys"),
            (MarkedRowKind.IDENTITY, "identities"),
            (MarkedRowKind.GATE_IDENTITY, "gate_identities"),
            (MarkedRowKind.DIRECTORY_RECORD, "directory_records"),
            (MarkedRowKind.SESSION, "sessions"),
            (MarkedRowKind.TOKEN, "tokens"),
            (MarkedRowKind.TENANT, "tenants"),
            (MarkedRowKind.DELEGATION, "delegations"),
            (MarkedRowKind.ELIGIBLE_DELEGATE, "eligible_delegates"),
            (MarkedRowKind.REPORT_CONSENT, "report_consents"),
            (MarkedRowKind.PRE_APPROVAL, "pre_approvals"),
            (MarkedRowKind.RETENTION, "retentions"),
            (MarkedRowKind.LEGAL_HOLD, "legal_holds"),
            (MarkedRowKind.OFFBOARDING, "offboardings"),
        )
    },
}
"""For kinds whose rows are scanned: the table, and the columns for the row's owner and for its MAC."""
ROWS = {
    kind: text(f"SELECT {', '.join(names)}, mac FROM marked_{table}(:ids)")  # noqa: S608 - ours
    for kind, (table, names) in READ.items()
}


@dataclass(frozen=True)
class RowOwners:
    """Queries for owners (people or tenants), and functions to check their rows.

    `next` finds the next page of owners, `fresh` the owners with new rows. For each kind of row, `marked` has two
    functions of a row: one returns its owner, the other the parts that its MAC covers.
    """

    next: TextClause
    fresh: TextClause
    marked: Mapping[MarkedRowKind, tuple[Callable[[Any], UUID], Callable[[Any], Sequence[Part]]]]

    def unverified(self, session: UnitOfWork, ids: Iterable[UUID]) -> list[UnverifiedRow]:
        is_mark, values = keyring.of(session).powers.is_mark, {"ids": list(ids)}
        found = []
        for kind, (whose, parts) in self.marked.items():
            rows = session.execute(ROWS[kind], values)
            found += [UnverifiedRow(whose(row), kind) for row in rows if not is_mark(row.mac, *parts(row))]
        return sorted(found)


OF_PEOPLE = RowOwners(
    text("SELECT id FROM people_to_check(:after, :page) AS id ORDER BY id"),
    text("SELECT id FROM people_with_new_powers(:lately, :most) AS id"),
    {
        MarkedRowKind.MEMBERSHIP: (
            PERSON_ID,
            lambda row: membership(row.id, row.person_id, row.tenant_id, row.role),
        ),
        MarkedRowKind.PASSKEY: (PERSON_ID, passkey),
        MarkedRowKind.IDENTITY: (PERSON_ID, identity),
        MarkedRowKind.GATE_IDENTITY: (PERSON_ID, gate_identity),
        MarkedRowKind.DIRECTORY_RECORD: (PERSON_ID, directory_record),
        MarkedRowKind.SESSION: (PERSON_ID, browser_session),
        MarkedRowKind.TOKEN: (PERSON_ID, token),
    },
)


OF_TENANTS = RowOwners(
    text("SELECT id FROM tenants_to_check(:after, :page) AS id ORDER BY id"),
    text("SELECT id FROM tenants_with_new_powers(:lately, :most) AS id"),
    {
        MarkedRowKind.TENANT: (attrgetter("id"), tenant),
        MarkedRowKind.POLICY: (TENANT_ID, lambda row: policy(row.tenant_id, row.version, row.body)),
        MarkedRowKind.DELEGATION: (TENANT_ID, delegation),
        MarkedRowKind.ELIGIBLE_DELEGATE: (TENANT_ID, eligible_delegate),
        MarkedRowKind.REPORT_CONSENT: (TENANT_ID, report_consent),
        MarkedRowKind.PRE_APPROVAL: (TENANT_ID, pre_approval),
        MarkedRowKind.PRE_APPROVAL_VOTE: (TENANT_ID, pre_approval_vote),
        **{kind: (TENANT_ID, partial(_covered, kind)) for kind in KIND_OF.values()},
    },
)


class MarkScan:
    """Scan the rows of owners page by page; owners with unverified or new rows are checked in each scan."""

    def __init__(self, owners: RowOwners) -> None:
        self._owners = owners
        self._after = FIRST_OWNER
        self._doubted: Sequence[UUID] = ()

    def look(self, session: UnitOfWork) -> list[UnverifiedRow]:
        connection = session.connection()
        page = connection.execute(self._owners.next, {"after": self._after, "page": SCAN_PAGE}).scalars().all()
        fresh = connection.execute(self._owners.fresh, {"lately": LATELY, "most": MOST_FRESH}).scalars()
        found = self._owners.unverified(session, {*page, *fresh, *self._doubted})
        self._after = page[-1] if len(page) == SCAN_PAGE else FIRST_OWNER
        self._doubted = sorted({one.whose for one in found})[:MOST_DOUBTED]
        return found


class MarkScans:
    def __init__(self) -> None:
        self._rounds = (MarkScan(OF_PEOPLE), MarkScan(OF_TENANTS))

    def look(self, session: UnitOfWork) -> list[UnverifiedRow]:
        return [one for round_ in self._rounds for one in round_.look(session)]


def report_unverified(session: UnitOfWork, process_id: UUID, found: Sequence[UnverifiedRow]) -> None:
    values = {"process": process_id, "number": len(found), "first": str(found[0]) if found else None}
    session.execute(REPORT, values)
