"""The data by which a decision is checked: tenant, policies and votes, read with the request or under its lock."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.audit.events import Origin
from lockbox.database import Query, UnitOfWork, read_at
from lockbox.errors import CommentRequired, Invalid, PasskeyMustSign, PasskeyTooNew, WindowTooLong
from lockbox.facts.enumerations import ApproveMeans, AuthMethod, State
from lockbox.identity import authentication, keyring, row_macs
from lockbox.identity.credentials import Passkey
from lockbox.identity.roles import Caller, Side
from lockbox.identity.row_macs import MarkedRowKind, UnverifiedRow
from lockbox.notifications import recipients
from lockbox.notifications.mail_text import duration
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests import deadlines, policy_store, prompt_tiers, quorum
from lockbox.requests.approvals import SignedStatement
from lockbox.requests.break_glass import BreakGlassRecord, obstacles_to
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest, Decision
from lockbox.requests.permitted_moves import Situation
from lockbox.requests.policy import Terms, fewest, lacking_today
from lockbox.requests.policy_parts import ReasonedDecision
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.requests.prompt_tiers import PromptedApprovers
from lockbox.requests.quorum import NO_LIMITS, ApprovalLimits, ApprovalTally, Vote
from lockbox.sql import columns, new_id

AFTER_LOCK = text(f"""
WITH {policy_store.RULED}, {authentication.HELD}
SELECT {policy_store.RULED_COLUMNS}, {authentication.HELD_COLUMNS}, clock_timestamp() AS at,
    EXISTS (SELECT FROM requests e WHERE e.extends = :id AND e.closed_at IS NULL) AS is_extended
FROM ruled CROSS JOIN held
""")  # noqa: S608 - ours
VOTE_COLUMNS = (*row_macs.COVERED[MarkedRowKind.DECISION], "opens_at", "mac")
VOTES = text(
    f"SELECT {columns(Decision, 'decisions', *VOTE_COLUMNS)} FROM decisions "  # noqa: S608 - ours
    "WHERE request_id = ANY(:request_ids)"
)
LATELY = text(
    f"SELECT {columns(Decision, 'd')} FROM decided_lately(:lately, :most) d"  # noqa: S608 - ours
)
OF_TENANT, OF_VOTE = "t_", "d_"
TENANT_COLUMNS = (*row_macs.COVERED[MarkedRowKind.TENANT], "mac")
# A tenant's policies are long, and many of its requests have the same ones, so each policy is sent once.
ONCE = "CASE WHEN row_number() OVER (PARTITION BY {of}.tenant_id, {of}.version) = 1 THEN {of}.body::text END AS {of}"
RULED_COLUMNS = f"""{ONCE.format(of="own")}, own.mac AS own_mac,
{ONCE.format(of="today")}, today.mac AS todays_mac,
{", ".join(f"tenants.{name} AS {OF_TENANT}{name}" for name in TENANT_COLUMNS)},
(SELECT e.state FROM requests e WHERE e.id = requests.extends) AS extended,
{", ".join(f"d.{name} AS {OF_VOTE}{name}" for name in VOTE_COLUMNS)}"""  # noqa: S608 - ours
"""The columns of a request's policies, tenant and votes: one row for each vote, or one row without votes."""
RULED_JOINS = """JOIN tenants ON tenants.id = requests.tenant_id JOIN people ON people.id = requests.requester_id
LEFT JOIN policies own ON own.tenant_id = requests.tenant_id AND own.version = requests.policy_version AND {which}
LEFT JOIN policies today ON today.tenant_id = own.tenant_id AND today.version = tenants.policy_version
LEFT JOIN decisions d ON d.request_id = requests.id AND own.version IS NOT NULL
AND requests.state IN ('reviewing', 'pending')"""
"""The joins to `requests` for `RULED_COLUMNS`; policies and votes are only read for requests that meet `which`."""
NAMED_COLUMNS = f"""{columns(AccessRequest, "requests")},
tenants.slug AS tenant, people.name AS requester, tenants.name AS tenant_name"""
DECIDED_FOR = timedelta(minutes=3)
MOST_DECIDED = 1_000
WHY = {
    Action.APPROVE: "This tenant's policy asks for a reason: say in a comment why you approve. Nothing was done yet.",
    Action.DENY: "Say in a comment why you deny: the engineer reads it, and it is on record. Nothing was done yet.",
    Action.BREAK_GLASS: (
        "Say in a comment why this cannot wait for the customer: they read it, and it is on record. "
        "Nothing was done yet."
    ),
    Action.REVOKE: "This tenant's policy asks for a reason: say in a comment why you revoke. Nothing was done yet.",
}
MUST_SIGN = (
    "This customer's policy requires each approval to be signed with a passkey of the approver: approve on the "
    "request's page, in a browser that has your passkey. If you have none yet, add one on your account page first."
)


@dataclass(frozen=True)
class DecisionInput:
    """`version` is the version that the person saw, if known; `signed` is what the person signed with a passkey.

    `reason` is a code for the cause of the move, if the move is not the person's own decision.
    """

    action: Action
    comment: str | None = None
    version: int | None = None
    limits: ApprovalLimits = NO_LIMITS
    signed: SignedStatement | None = None
    reason: str | None = None


@dataclass(frozen=True)
class DecisionContext:
    """`is_extended` is whether an open request extends this request.

    `too_new` is why the caller's passkeys cannot approve yet.
    """

    caller: Caller
    origin: Origin
    known: RecipientDirectory
    effective: EffectivePolicy
    at: datetime
    votes: tuple[Vote, ...] = ()
    break_glass: BreakGlassRecord | None = None
    is_extended: bool = False
    keys: Sequence[Passkey] | None = None
    too_new: PasskeyTooNew | None = None

    def situation(self, request: AccessRequest) -> Situation:
        found = situation_of(request, self.caller, self.at, self.effective, self.votes, self.principals(request))
        found = replace(found, too_new=self.too_new)
        if self.break_glass is None:
            return found
        lacks = obstacles_to(request, self.effective, self.break_glass, self.caller.person_id, self.at)
        return replace(found, break_glass_lacks=lacks)

    def principals(self, request: AccessRequest) -> frozenset[UUID]:
        return self.known.delegates[request.tenant_id].get(self.caller.person_id, frozenset())

    def seats(self, request: AccessRequest) -> frozenset[UUID]:
        """The approvers whose seats the caller can fill now, including the caller's own seat."""
        return self.known.seats(request.tenant_id).get(self.caller.person_id, frozenset())

    def tallies(self, request: AccessRequest) -> list[ApprovalTally]:
        return tallies_of(request, self.effective, self.votes)

    def step(self, request: AccessRequest) -> int:
        return quorum.step_of(self.tallies(request))

    def asked_by(self, request: AccessRequest, step: int) -> frozenset[UUID]:
        terms, groups, tenant_id = self.effective.terms, self.effective.groups, request.tenant_id
        return prompt_tiers.approvers_so_far(terms, groups, self.known, tenant_id, request.tiers_asked, step=step)

    def asked(self, request: AccessRequest) -> PromptedApprovers:
        return prompt_tiers.first_approvers(
            self.effective.terms, self.effective.groups, self.known, request.tenant_id
        )


def tallies_of(
    request: AccessRequest | Row[Any], effective: EffectivePolicy, votes: Sequence[Vote]
) -> list[ApprovalTally]:
    needed = max(request.quorum, effective.terms.quorum)
    return quorum.tallies(votes, needed, effective.terms.stages, effective.groups)


def after_lock(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    request: AccessRequest,
    *,
    with_votes: bool = False,
    ahead: Sequence[Query] = (),
) -> DecisionContext:
    """Read what a decision about the locked request depends on.

    For a vendor user, the request's tenant is the transaction's tenant from here on (`authentication.turn_to`).
    """
    of_request = {"tenant_id": request.tenant_id, "version": request.policy_version, "extends": request.extends}
    judged: Query = AFTER_LOCK, of_request | {"id": request.id, "person_id": caller.person_id}
    votes = [_votes([request.id])] if with_votes else []
    then = [recipients.ahead_of_look_up({request.tenant_id}), *votes, *ahead]
    session.foresee([judged, *then] if caller.side is Side.VENDOR else then)
    if caller.side is Side.VENDOR:
        authentication.turn_to(session, request.tenant_id)
    row = session.execute(*judged).one()
    at = read_at(session, row.at)
    known = recipients.look_up(session, {request.tenant_id}, None if at is row.at else at)
    effective = policy_store.effective_policy_in(session, row, request)
    so_far = votes_of(session, request, known, effective.terms) if with_votes else ()
    holding = authentication.holding(session, caller, row)
    return DecisionContext(holding, origin, known, effective, at, so_far, is_extended=row.is_extended)


def votes_of(
    session: UnitOfWork, request: AccessRequest, known: RecipientDirectory, terms: Terms
) -> tuple[Vote, ...]:
    """A vote fills a seat only if the person could still vote in the same way.

    A delegate's vote counts for the principals whom the delegate represented at the vote and still represents. A vote
    by mailed code fills no seat if the policy no longer accepts mail alone. Nor does an approval without a valid MAC:
    someone with a database login wrote it.
    """
    return all_votes(session, [request], known, {request.id: terms})[request.id]


def all_votes(
    session: UnitOfWork,
    requests: Sequence[AccessRequest | Row[Any]],
    known: RecipientDirectory,
    terms: Mapping[UUID, Terms],
) -> dict[UUID, tuple[Vote, ...]]:
    rows = session.execute(*_votes([request.id for request in requests])).all()
    return votes_in(session, requests, known, terms, rows)


def votes_in(
    session: UnitOfWork,
    requests: Sequence[AccessRequest | Row[Any]],
    known: RecipientDirectory,
    terms: Mapping[UUID, Terms],
    rows: Iterable[Row[Any] | SimpleNamespace],
) -> dict[UUID, tuple[Vote, ...]]:
    seats = {request.id: known.seats(request.tenant_id) for request in requests}
    votes: dict[UUID, tuple[Vote, ...]] = dict.fromkeys(seats, ())
    for row in rows:
        filled = seats[row.request_id].get(row.person_id, frozenset()) & _spoke_for(row, terms[row.request_id])
        if (
            filled
            and row.decision == Action.APPROVE
            and not row_macs.is_believed(session, row.mac, row_macs.decision(row), row.id)
        ):
            filled = frozenset()
        vote = Vote(row.person_id, Action(row.decision), filled, ApprovalLimits.of(row))
        votes[row.request_id] = (*votes[row.request_id], vote)
    return votes


def votes_in_rows(
    session: UnitOfWork,
    request: AccessRequest | Row[Any],
    rows: Iterable[Row[Any]],
    known: RecipientDirectory,
    effective: EffectivePolicy,
) -> tuple[Vote, ...]:
    mappings = [row._mapping for row in rows if row.d_id is not None]  # noqa: SLF001 - SQLAlchemy documents it
    given = [SimpleNamespace(**{name: mapping[f"{OF_VOTE}{name}"] for name in VOTE_COLUMNS}) for mapping in mappings]
    return votes_in(session, [request], known, {request.id: effective.terms}, given)[request.id]


def short(statement: str) -> str:
    """Remove line breaks and extra spaces: the driver parses a long statement each time it is sent."""
    return " ".join(statement.split()).replace(", ", ",")


class RuledRows:
    def __init__(self, rows: Sequence[Row[Any]]) -> None:
        self._bodies = {(row.tenant_id, row.policy_version): row.own for row in rows if row.own is not None}
        self._bodies |= {(row.tenant_id, row.t_policy_version): row.today for row in rows if row.today is not None}

    def effective(self, session: UnitOfWork, row: Row[Any], request: AccessRequest | Row[Any]) -> EffectivePolicy:
        """The reader must be allowed to read the policies of the row's tenant."""
        found = row._mapping  # noqa: SLF001 - SQLAlchemy documents it
        ruled = SimpleNamespace(
            own=self._bodies[row.tenant_id, row.policy_version],
            own_mac=row.own_mac,
            today=self._bodies[row.tenant_id, row.t_policy_version],
            todays_mac=row.todays_mac,
            extended=row.extended,
            **{name: found[f"{OF_TENANT}{name}"] for name in TENANT_COLUMNS},
        )
        return policy_store.effective_policy_in(session, ruled, request)


def by_request(rows: Iterable[Row[Any]]) -> dict[UUID, list[Row[Any]]]:
    found: dict[UUID, list[Row[Any]]] = {}
    for row in rows:
        found.setdefault(row.id, []).append(row)
    return found


def _votes(request_ids: Sequence[UUID]) -> Query:
    return VOTES, {"request_ids": request_ids}


def unverified(session: UnitOfWork) -> list[UnverifiedRow]:
    is_mark = keyring.of(session).powers.is_mark
    rows = session.execute(LATELY, {"lately": DECIDED_FOR, "most": MOST_DECIDED})
    return sorted(
        UnverifiedRow(row.person_id, MarkedRowKind.DECISION)
        for row in rows
        if not is_mark(row.mac, *row_macs.decision(row))
    )


def _spoke_for(row: Row[Any] | SimpleNamespace, terms: Terms) -> frozenset[UUID]:
    in_vain = row.means == AuthMethod.MAIL and not terms.mail_suffices
    if row.decision == Action.APPROVE and terms.approve_means is ApproveMeans.PASSKEY_SIGNED:
        in_vain = in_vain or row.assertion is None
    return frozenset() if in_vain else frozenset({row.person_id, *row.principals})


def signed_where_demanded(decision_input: DecisionInput, terms: Terms) -> None:
    """Raises PasskeyMustSign."""
    if terms.approve_means is ApproveMeans.PASSKEY_SIGNED and decision_input.signed is None:
        raise PasskeyMustSign(MUST_SIGN)


def reasoned(decision_input: DecisionInput, terms: Terms, *, by_the_vendor: bool) -> None:
    """Whatever the policy demands, a manager needs a reason to deny a request or to use break-glass.

    Raises CommentRequired.
    """
    said = decision_input.comment and decision_input.comment.strip()
    needing = needing_reasons(terms, by_the_vendor=by_the_vendor)
    if not said and (decision_input.action is Action.BREAK_GLASS or decision_input.action.value in needing):
        raise CommentRequired(WHY[decision_input.action], field="comment")


def needing_reasons(terms: Terms, *, by_the_vendor: bool) -> frozenset[ReasonedDecision]:
    """Return the decisions for which the terms demand a reason.

    For the vendor's decisions, the default terms' demands are added: no customer's policy weakens the vendor's own
    rules.
    """
    return terms.comment_required | (Terms().comment_required if by_the_vendor else frozenset())


def decide(
    caller: Caller,
    origin: Origin,
    request: AccessRequest,
    decision_input: DecisionInput,
    *,
    votes: Sequence[Vote],
    principals: frozenset[UUID],
    terms: Terms,
    at: datetime,
) -> Decision:
    """Return the unsigned row of a decision. Raises WindowTooLong, Invalid, NothingLeft."""
    if (
        decision_input.limits.access_window is not None
        and decision_input.limits.access_window > request.access_window
    ):
        raise WindowTooLong(
            f"You may shorten the window, not lengthen it: {request.access_window} seconds were asked.",
            field="access_window",
            limit_seconds=request.access_window,
        )
    resources, actions = _kept(request, decision_input, votes)
    return Decision(
        id=new_id(),
        request_id=request.id,
        person_id=caller.person_id,
        principals=sorted(principals),
        means=caller.means,
        decision=decision_input.action,
        access_window=decision_input.limits.access_window,
        resources=resources,
        actions=actions,
        max_uses=_uses(request, decision_input, terms.max_uses),
        opens_at=_start(request, decision_input, terms, at),
        comment=decision_input.comment,
        channel=origin.channel,
        address=origin.address,
        user_agent=origin.user_agent,
        decided_at=at,
    )


def _kept(
    request: AccessRequest, decision_input: DecisionInput, votes: Sequence[Vote]
) -> tuple[list[str] | None, list[str] | None]:
    """Return the resources and actions that an approval keeps; None if it keeps all, and for other decisions."""
    if decision_input.action is not Action.APPROVE:
        return None, None
    resources = quorum.kept(request.resources, decision_input.limits.resources, "resources")
    actions = quorum.kept(request.actions, decision_input.limits.actions, "actions")
    counting = [vote for vote in votes if vote.decision is Action.APPROVE and vote.seats]
    quorum.granted(request.resources, [*(vote.limits.resources for vote in counting), resources], "resources")
    quorum.granted(request.actions, [*(vote.limits.actions for vote in counting), actions], "actions")
    return resources, actions


def _uses(request: AccessRequest, decision_input: DecisionInput, most: int | None) -> int | None:
    """None if uses are not limited, and for decisions other than approvals."""
    if decision_input.action is not Action.APPROVE:
        return None
    fewer = decision_input.limits.max_uses
    if request.max_uses is not None and (fewer or 0) > request.max_uses:
        asked = f"{request.max_uses} {'use was' if request.max_uses == 1 else 'uses were'} asked"
        raise Invalid(f"You may lower the number of uses, not raise it: {asked}.", field="max_uses")
    return fewest(request.max_uses, fewer, most)


def _start(request: AccessRequest, decision_input: DecisionInput, terms: Terms, at: datetime) -> datetime | None:
    """None for an immediate start, and for decisions other than approvals."""
    start = decision_input.limits.opens_at
    if decision_input.action is not Action.APPROVE:
        return None
    if start is None:
        return request.not_before
    if request.extends is not None:
        raise Invalid(
            "An extension begins when the window ends that it extends: leave the start out.", field="opens_at"
        )
    if start < (request.not_before or at):
        earliest = "what was asked" if request.not_before else "now"
        raise Invalid(f"You may move the start later, not earlier than {earliest}.", field="opens_at")
    if start > request.created_at + timedelta(seconds=terms.start_ahead):
        latest = f"at most {duration(terms.start_ahead)} after the submission" if terms.start_ahead else "at once"
        raise Invalid(f"By the customer's policy access begins {latest}. Choose an earlier start.", field="opens_at")
    return start


NONE = timedelta(0)
ASKED_STATES = frozenset({State.REVIEWING, State.PENDING})


def situation_of(  # noqa: PLR0917 - all that a situation is made from
    request: AccessRequest,
    caller: Caller,
    at: datetime,
    effective: EffectivePolicy,
    votes: Sequence[Vote] = (),
    principals: frozenset[UUID] = frozenset(),
) -> Situation:
    terms = effective.terms
    return Situation(
        caller=caller,
        tenant_id=request.tenant_id,
        requester_id=request.requester_id,
        state=State(request.state),
        version=request.version,
        created_at=request.created_at,
        asked_at=request.asked_at,
        deadline_at=request.deadline_at,
        at=at,
        terms=terms,
        paused=deadlines.stood(request.clock, at) if terms.questions_stop_clock else NONE,
        lacks=lacking_today(request, terms, request.timing) if request.state in ASKED_STATES else (),
        votes=votes,
        principals=principals,
        groups=effective.groups,
        is_suspended=effective.is_suspended,
        is_verified=effective.is_verified,
        is_outlived=effective.is_outlived,
        break_glass=request.break_glass,
    )
