"""Renewal of row MACs with the newest key, before an older key is removed or after a key was lost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlmodel import col, select

from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_OWNER, AuditEvent
from lockbox.database import UnitOfWork, now
from lockbox.identity import keyring, row_macs
from lockbox.identity.credentials import BrowserSession, GateIdentity, Identity, Passkey, Token
from lockbox.identity.keyring import Keyring, Part
from lockbox.identity.models import (
    Delegation,
    DirectoryRecord,
    EligibleDelegate,
    Invitation,
    LegalHold,
    Membership,
    Offboarding,
    PolicyVersion,
    ReportConsent,
    Retention,
    ServiceEnforcement,
    Tenant,
)
from lockbox.identity.row_macs import TenantDataRow
from lockbox.notifications import announcements
from lockbox.requests.models import PreApproval, PreApprovalVote

Row = (
    Membership
    | Passkey
    | Identity
    | GateIdentity
    | DirectoryRecord
    | Tenant
    | PolicyVersion
    | Delegation
    | EligibleDelegate
    | ServiceEnforcement
    | ReportConsent
    | PreApproval
    | PreApprovalVote
    | TenantDataRow
)


@dataclass
class RotationResult:
    """`unverified` names rows without a valid MAC, and the people or tenants they belong to.

    `waiting` counts tokens and sessions whose MAC is renewed at their next use. `ended` counts tokens, sessions and
    invitations that became unusable.
    """

    marked: int = 0
    unverified: list[str] = field(default_factory=list)
    waiting: int = 0
    ended: int = 0


def rekey(session: UnitOfWork, *, key_is_lost: bool = False) -> RotationResult:
    """As the database's owner, replace row MACs of older keys with MACs of the newest key.

    If the key is lost, a row without a valid MAC is accepted and gets a MAC. Tokens, browser sessions and invitations
    without a valid MAC end instead: the database's owner may have written them.
    """
    ring, done, at = keyring.of(session), RotationResult(), now(session)
    for row, parts in _rows(session):
        _mark(ring, row, parts, done, key_is_lost=key_is_lost)
    for secret in _secrets(session, at):
        if not _is_ours(ring, secret):
            done.ended += 1
            secret.revoked_at = at if key_is_lost else None
        elif secret.mac is not None and not ring.powers.is_newest(secret.mac):
            done.waiting += 1
    for invitation in _open(session, at):
        if not ring.powers.is_mark(invitation.mac, *row_macs.invitation(invitation)):
            done.ended += 1
            if key_is_lost:
                invitation.withdrawn_at, invitation.withdrawn_by = at, invitation.invited_by
    session.orm.flush()
    if done.marked:
        facts: dict[str, Value] = {
            "rows": done.marked,
            "unverified": len(done.unverified),
            "key_is_lost": key_is_lost,
        }
        announcements.record(session, AuditEvent(at=at, action="powers_rekeyed", actor=THE_OWNER, facts=facts))
    return done


def _mark(ring: Keyring, row: Row, parts: Sequence[Part], done: RotationResult, *, key_is_lost: bool) -> None:
    if not row_macs.is_from_before(row) and not ring.powers.is_mark(row.mac, *parts):
        done.unverified.append(_named(row))
        if not key_is_lost:
            return
    elif row.mac is not None and ring.powers.is_newest(row.mac):
        return
    row.mac = ring.powers.mark(*parts)
    done.marked += 1


def _rows(session: UnitOfWork) -> Iterator[tuple[Row, Sequence[Part]]]:
    for one in session.orm.exec(select(Membership).order_by(col(Membership.id))):
        yield one, row_macs.membership(one.id, one.person_id, one.tenant_id, one.role)
    for key in session.orm.exec(select(Passkey).order_by(col(Passkey.id))):
        yield key, row_macs.passkey(key)
    for identity in session.orm.exec(select(Identity).order_by(col(Identity.issuer), col(Identity.subject))):
        yield identity, row_macs.identity(identity)
    for mapped in session.orm.exec(select(GateIdentity).order_by(col(GateIdentity.id))):
        yield mapped, row_macs.gate_identity(mapped)
    for record in session.orm.exec(select(DirectoryRecord).order_by(col(DirectoryRecord.person_id))):
        yield record, row_macs.directory_record(record)
    for tenant in session.orm.exec(select(Tenant).order_by(col(Tenant.id))):
        yield tenant, row_macs.tenant(tenant)
    for policy in session.orm.exec(
        select(PolicyVersion).order_by(col(PolicyVersion.tenant_id), col(PolicyVersion.version))
    ):
        yield policy, row_macs.policy(policy.tenant_id, policy.version, policy.body)
    for delegation in session.orm.exec(select(Delegation).order_by(col(Delegation.id))):
        yield delegation, row_macs.delegation(delegation)
    for eligible in session.orm.exec(select(EligibleDelegate).order_by(col(EligibleDelegate.id))):
        yield eligible, row_macs.eligible_delegate(eligible)
    yield from _gates(session)


def _gates(session: UnitOfWork) -> Iterator[tuple[Row, Sequence[Part]]]:
    for gate in session.orm.exec(select(ServiceEnforcement).order_by(col(ServiceEnforcement.service))):
        yield gate, row_macs.enforcement(gate)
    for consent in session.orm.exec(select(ReportConsent).order_by(col(ReportConsent.id))):
        yield consent, row_macs.report_consent(consent)
    for one in session.orm.exec(select(PreApproval).order_by(col(PreApproval.id))):
        yield one, row_macs.pre_approval(one)
    for vote in session.orm.exec(select(PreApprovalVote).order_by(col(PreApprovalVote.id))):
        yield vote, row_macs.pre_approval_vote(vote)
    yield from _data(session)


def _data(session: UnitOfWork) -> Iterator[tuple[Row, Sequence[Part]]]:
    for kept in session.orm.exec(select(Retention).order_by(col(Retention.tenant_id))):
        yield kept, row_macs.tenant_data(kept)
    for hold in session.orm.exec(select(LegalHold).order_by(col(LegalHold.id))):
        yield hold, row_macs.tenant_data(hold)
    leaving = select(Offboarding).where(col(Offboarding.erased_at).is_(None))
    for asked in session.orm.exec(leaving.order_by(col(Offboarding.tenant_id))):
        yield asked, row_macs.tenant_data(asked)


def _named(row: Row) -> str:
    match row:
        case Membership():
            place = f"at tenant {row.tenant_id}" if row.tenant_id else "at the vendor"
            named = f"{row.role} {place}: person {row.person_id}"
        case Tenant():
            suspended = ", suspended" if row.suspended else ""
            named = f"mode {row.mode}, plan {row.plan}{suspended}: tenant {row.id}"
        case PolicyVersion():
            named = f"policy {row.version}: tenant {row.tenant_id}"
        case Delegation():
            named = f"delegate {row.delegate_id} of person {row.principal_id}: tenant {row.tenant_id}"
        case EligibleDelegate():
            named = f"eligible delegate: person {row.person_id} at tenant {row.tenant_id}"
        case ServiceEnforcement():
            named = f"gate in {row.wanted}: service {row.service}"
        case ReportConsent() | PreApproval() | Retention() | LegalHold() | Offboarding():
            named = f"{_of_tenant(row)}: tenant {row.tenant_id}"
        case Passkey() | PreApprovalVote():
            what = "passkey" if isinstance(row, Passkey) else "vote on a pre-approval"
            named = f"{what} {row.id}: person {row.person_id}"
        case Identity() | GateIdentity() | DirectoryRecord():
            what = "directory record" if isinstance(row, DirectoryRecord) else f"identity at {row.issuer}"
            named = f"{what}: person {row.person_id}"
    return named


def _of_tenant(row: ReportConsent | PreApproval | TenantDataRow) -> str:
    match row:
        case ReportConsent():
            return "consent to a gate in report"
        case PreApproval():
            return f"pre-approval {row.id}"
        case _:
            return row_macs.KIND_OF[type(row)]


def _secrets(session: UnitOfWork, at: datetime) -> Iterator[Token | BrowserSession]:
    yield from session.orm.exec(select(Token).where(col(Token.revoked_at).is_(None), col(Token.expires_at) > at))
    good = (col(BrowserSession.revoked_at).is_(None), col(BrowserSession.expires_at) > at)
    yield from session.orm.exec(select(BrowserSession).where(*good))


def _is_ours(ring: Keyring, row: Token | BrowserSession) -> bool:
    parts = row_macs.token(row) if isinstance(row, Token) else row_macs.browser_session(row)
    return ring.powers.is_mark(row.mac, *parts)


def _open(session: UnitOfWork, at: datetime) -> Sequence[Invitation]:
    is_open = (
        col(Invitation.accepted_at).is_(None),
        col(Invitation.withdrawn_at).is_(None),
        col(Invitation.expires_at) > at,
    )
    return session.orm.exec(select(Invitation).where(*is_open)).all()
