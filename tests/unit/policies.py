"""Strategies for any terms, policies and requests, for tests that hold for all of them."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from lockbox.facts.bounds import HARD_ACCESS_LIMIT, MOST_USES
from lockbox.facts.enumerations import ApproveMeans, Mode, Reason, Severity
from lockbox.facts.requester import Requester
from lockbox.requests.policy import Consent, Terms
from lockbox.requests.policy_parts import (
    DAY,
    HARD_ANSWER_LIMIT,
    HARD_BREAK_GLASS_LIMIT,
    MOST_APPROVALS,
    MOST_BREAK_GLASS,
    MOST_STEPS,
    MOST_TIERS,
    ApprovalStage,
    OverdueFinding,
    ReasonedDecision,
    RequesterMeans,
    UnconfirmedCase,
)
from lockbox.requests.policy_rules import Match, Overrides, Policy, RequestFacts, Rule

PEOPLE = tuple(UUID(int=number) for number in range(1, 6))
GROUPS = ("board", "legal", "ops")
SERVICES, ACTIONS = ("files", "mail"), ("read", "repair")
LANDS, ENTITIES = ("DE", "FR", "US"), ("Example GmbH", "Example Inc")
RESOURCES = ("file:ann", "mailbox:amir", "mailbox:ann")
PATTERNS = ("file:*", "mailbox:a*n", "mailbox:amir")


def tiers_of(positions: dict[str, int]) -> tuple[tuple[str, ...], ...]:
    """Return tiers in which each group stands at its position; some may be empty."""
    tiers = range(max(positions.values(), default=-1) + 1)
    return tuple(tuple(group for group, at in positions.items() if at == tier) for tier in tiers)


def stages_of(wanted: dict[str, tuple[int, int]]) -> tuple[ApprovalStage, ...]:
    """Return a stage for each group, with its quorum and step."""
    return tuple(ApprovalStage(group=one, quorum=quorum, order=order) for one, (quorum, order) in wanted.items())


def some(values: tuple[Any, ...]) -> st.SearchStrategy[tuple[Any, ...]]:
    """Return at least one of the values, in any order."""
    return st.lists(st.sampled_from(values), min_size=1, unique=True).map(tuple)


def quorums(most: int, least_groups: int) -> st.SearchStrategy[tuple[ApprovalStage, ...]]:
    stages = st.tuples(st.integers(1, most), st.integers(1, MOST_STEPS))
    wanted = st.dictionaries(st.sampled_from(GROUPS), stages, min_size=least_groups)
    return wanted.map(stages_of)


POSITIONS = st.dictionaries(st.sampled_from(GROUPS), st.integers(0, MOST_TIERS - 1))
FULL_TIERS = POSITIONS.map(lambda positions: tuple(tier for tier in tiers_of(positions) if tier))
PLAIN: dict[str, st.SearchStrategy[Any]] = {
    "vendor_review": st.booleans(),
    "review_window": st.integers(1, HARD_ANSWER_LIMIT),
    "approval_window": st.integers(1, HARD_ANSWER_LIMIT),
    "access_ceiling": st.integers(1, HARD_ACCESS_LIMIT),
    "total_access_ceiling": st.integers(1, HARD_ACCESS_LIMIT),
    "start_ahead": st.integers(0, 30 * DAY),
    "quorum": st.integers(1, MOST_APPROVALS),
    "max_uses": st.integers(1, MOST_USES),
    "require_case": st.booleans(),
    "unconfirmed_case": st.sampled_from(UnconfirmedCase),
    "justification_least": st.integers(1, 1000),
    "mail_link": st.booleans(),
    "mail_justification": st.booleans(),
    "mail_suffices": st.booleans(),
    "approve_means": st.sampled_from(ApproveMeans),
    "first_passkey_wait": st.integers(0, HARD_ANSWER_LIMIT),
    "sign_in_age": st.integers(60, DAY),
    "revoke_sign_in_age": st.integers(60, DAY),
    "closing_warning": st.integers(0, DAY),
    "report_on_close": st.booleans(),
    "questions_stop_clock": st.booleans(),
    "requester_means": st.sampled_from(RequesterMeans),
    "requester_sign_in_age": st.integers(60, DAY),
    "break_glass_services": st.lists(st.sampled_from(SERVICES), unique=True).map(tuple),
    "break_glass_people": st.lists(st.sampled_from(PEOPLE), unique=True).map(tuple),
    "break_glass_ceiling": st.integers(60, HARD_BREAK_GLASS_LIMIT),
    "break_glass_monthly": st.integers(1, MOST_BREAK_GLASS),
    "overdue_finding": st.sampled_from(OverdueFinding),
}
PERCENTS = st.lists(st.integers(1, 99), max_size=MOST_TIERS - 1, unique=True).map(tuple)
TIMED = dict.fromkeys(("escalation", "approval_reminders", "review_reminders", "review_escalation"), PERCENTS)
COMMENTS = st.frozensets(st.sampled_from(ReasonedDecision))
CASES = st.lists(st.sampled_from(("CHG-*|INC*", "INC*", "*7")), max_size=3, unique=True).map(tuple)
MERGED = {
    "comment_required": COMMENTS,
    "case_patterns": CASES,
    "countries": st.none() | st.frozensets(st.sampled_from(LANDS)),
    "reasons": st.frozensets(st.sampled_from(Reason)),
    "tiers": POSITIONS.map(tiers_of),
}
CHOSEN = {
    "comment_required": COMMENTS.filter(bool),
    "case_patterns": CASES.filter(bool),
    "countries": st.frozensets(st.sampled_from(LANDS), min_size=1),
    "reasons": st.frozensets(st.sampled_from(Reason), min_size=1),
    "tiers": FULL_TIERS,
}

UNLIMITED = {
    "revoke_sign_in_age": st.none() | st.integers(60, DAY),
    "max_uses": st.none() | st.integers(1, MOST_USES),
    "requester_sign_in_age": st.none() | st.integers(60, DAY),
    "break_glass_people": st.none() | st.lists(st.sampled_from(PEOPLE), unique=True).map(tuple),
}
TERMS = st.builds(Terms, **(PLAIN | UNLIMITED), **MERGED, **TIMED, stages=quorums(MOST_APPROVALS, 0))
OVERRIDES = (
    st.fixed_dictionaries(
        {},
        optional=PLAIN
        | CHOSEN
        | {name: percents.filter(bool) for name, percents in TIMED.items()}
        | {"stages": quorums(2, 1), "tiers": FULL_TIERS.filter(bool)},
    )
    .filter(bool)
    .map(Overrides.model_validate)
)
MATCHES = (
    st.fixed_dictionaries(
        {},
        optional={
            "services": some(SERVICES),
            "actions": some(ACTIONS),
            "reasons": some(tuple(Reason)),
            "resources": some(PATTERNS),
            "severities": some(tuple(Severity)),
            "outside_countries": some(LANDS),
            "outside_entities": some(ENTITIES),
        },
    )
    .filter(bool)
    .map(Match.model_validate)
)
RULES = st.builds(
    Rule, name=st.sampled_from(("strict", 'the "board" → first', "none")), match=MATCHES, terms=OVERRIDES
)
MEMBERS = st.lists(st.sampled_from(PEOPLE), min_size=2, unique=True).map(tuple)
CONSENTS = st.builds(
    Consent,
    mode=st.sampled_from((Mode.OBSERVE, Mode.OFF)),
    until=st.datetimes(
        datetime(2026, 1, 1),  # noqa: DTZ001 - the strategy adds the zone
        datetime(2027, 1, 1),  # noqa: DTZ001
        timezones=st.sampled_from((UTC, timezone(timedelta(hours=-7)))),
    ),
)
POLICIES = st.builds(
    Policy,
    **PLAIN,
    **CHOSEN,
    **TIMED,
    stages=quorums(2, 0),
    rules=st.lists(RULES, max_size=3).map(tuple),
    groups=st.fixed_dictionaries(dict.fromkeys(GROUPS, MEMBERS), optional={"spare": st.just(())}),
    consent=st.none() | CONSENTS,
)
ASKS = st.builds(
    RequestFacts,
    service=st.sampled_from(SERVICES),
    actions=some(ACTIONS),
    reason=st.sampled_from(Reason),
    resources=some(RESOURCES),
    severity=st.none() | st.sampled_from(Severity),
    requester=st.builds(
        Requester,
        employing_entity=st.none() | st.sampled_from(ENTITIES),
        office_country=st.none() | st.sampled_from(LANDS),
        physical_country=st.none() | st.sampled_from(LANDS),
    ),
)
