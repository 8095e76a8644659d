"""Filing a request: what is asked is judged, held against the limits, and written with its first event."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from config.settings import Service
from lockbox.audit.events import Actor
from lockbox.errors import NobodyCanApprove, PolicyNotMet, TooMany, WindowTooLong
from lockbox.failpoints import reach
from lockbox.identity.roles import Caller, Means
from lockbox.ids import new_id
from lockbox.requests import reminders, submission, transition
from lockbox.requests.evaluate import Filing, Judged, judge, lacking
from lockbox.requests.lifecycle import Action, Party, State
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy import deadline, wake_at
from lockbox.requests.tiers import Asked
from lockbox.requests.transition import Change, Origin, actor_for, identity

MINUTE = timedelta(minutes=1)

NTH_FILING = text("SELECT tenant_at, person_at FROM nth_filing(:tenant_id, :most_tenant, :most_person)")


@dataclass(frozen=True)
class Limits:
    """How many requests are taken in a minute: from one person, whatever they show, and for one tenant."""

    by_person: int
    for_tenant: int


@dataclass(frozen=True)
class Submitted:
    """A new request, its tenant's and its requester's names, and how many people are asked about it."""

    request: AccessRequest
    tenant: str
    requester: str
    asked: int


def submit(
    session: Session,
    caller: Caller,
    origin: Origin,
    filing: Filing,
    services: Mapping[str, Service],
    *,
    limits: Limits | None = None,
) -> Submitted:
    """File a request.

    Raises:
        NotYours: the caller is neither an engineer nor a system that may file for one.
        UnknownTenant, TenantSuspended, UnknownService, UnknownEngineer: as named.
        PolicyNotMet, WindowTooLong: the tenant's policy asks for something else; `errors` says what.
        NobodyCanApprove: too few people could ever approve it; the sentence says why.
        TooMany: more was filed in the last minute than the limits let through.
    """
    judged = judge(session, caller, filing, services)
    _meets(filing, judged)
    if obstacles := list(judged.obstacles()):
        raise NobodyCanApprove(" ".join(obstacles))
    if limits:
        _within(session, limits, judged)
    reach("intake.after_judging")
    request = _new(caller, filing, judged)
    on_behalf_of = judged.requester_id if judged.party is Party.SYSTEM else None
    actor = actor_for(caller, judged.party, origin, on_behalf_of=on_behalf_of)
    asked = _asked(judged)
    transition.insert(session, request, _filed(request, actor, asked.people), judged.known)
    reach("intake.after_insert")
    return Submitted(request, judged.tenant.slug, judged.requester, len(asked.people))


def _asked(judged: Judged) -> Asked:
    if judged.first_state is State.REVIEWING:
        return judged.first_reviewers
    return Asked(judged.first_asked.tiers, judged.prompted)


def _meets(filing: Filing, judged: Judged) -> None:
    lacks = lacking(filing, judged.terms)
    if not lacks:
        return
    sentence = " ".join(said for _, said in lacks)
    if [field for field, _ in lacks] == ["access_window"]:
        raise WindowTooLong(sentence, field="access_window", limit_seconds=judged.terms.access_ceiling)
    errors = [{"field": field, "message": said} for field, said in lacks]
    raise PolicyNotMet(sentence, field=lacks[0][0], errors=errors)


def _within(session: Session, limits: Limits, judged: Judged) -> None:
    values = {"tenant_id": judged.tenant.id, "most_tenant": limits.for_tenant, "most_person": limits.by_person}
    row = session.connection().execute(NTH_FILING, values).one()
    for filed_at, most, whose in (
        (row.person_at, limits.by_person, "by you"),
        (row.tenant_at, limits.for_tenant, "for this tenant"),
    ):
        wait = filed_at + MINUTE - judged.at if filed_at else timedelta(0)
        if wait > timedelta(0):
            seconds = ceil(wait.total_seconds())
            raise TooMany(f"At most {most} requests a minute are taken {whose}; wait.", retry_after=seconds)


def _new(caller: Caller, filing: Filing, judged: Judged) -> AccessRequest:
    terms, state, at = judged.terms, judged.first_state, judged.at
    until = _consent_until(judged)
    ends = deadline(
        state, at, review=terms.review_window, approval=terms.approval_window, access=filing.access_window
    )
    ends = min(ends, until) if until else ends
    request = AccessRequest(
        id=new_id(),
        tenant_id=judged.tenant.id,
        requester_id=judged.requester_id,
        service=filing.service,
        resources=list(dict.fromkeys(filing.resources)),
        actions=list(dict.fromkeys(filing.actions)),
        reason_code=filing.reason_code,
        justification=filing.justification,
        case_ref=filing.case_ref,
        mode=judged.mode,
        policy_version=judged.tenant.policy_version,
        token_id=_token(caller),
        filed_by=caller.person_id,
        consent_until=until,
        quorum=terms.quorum,
        approval_window=terms.approval_window,
        access_window=filing.access_window,
        state=state,
        version=1,
        deadline_at=ends,
        created_at=at,
        asked_at=at if state is State.PENDING else None,
        tiers_asked=_asked(judged).tiers,
        follows=filing.follows,
    )
    request.wake_at = wake_at(reminders.stretch_of(request, judged.known), terms, at)
    return request


def _consent_until(judged: Judged) -> datetime | None:
    """Return until when the vendor may open alone, where only dated consent lets it."""
    consent = judged.policy.consent
    return consent.until if consent and judged.mode is not judged.tenant.mode else None


def _token(caller: Caller) -> UUID | None:
    # A browser that plays a sample person has signed in at some time; a sample token never did.
    is_sample = caller.means is Means.SAMPLE and caller.signed_in_at is None
    return caller.key_id if caller.means is Means.TOKEN or is_sample or caller.by_terminal else None


def _filed(request: AccessRequest, actor: Actor, asked: frozenset[UUID]) -> Change:
    return Change(
        **identity(request),
        action=Action.SUBMIT,
        actor=actor,
        from_state=None,
        at=request.created_at,
        policy_version=request.policy_version,
        asked=asked,
        facts=submission.facts(request),
        personal=submission.personal(request),
    )
