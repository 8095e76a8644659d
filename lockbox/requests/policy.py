"""The terms and dated consent of a policy, what follows from terms and mode, and which terms are stricter; pure."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Annotated, Any, Protocol

from pydantic import AfterValidator, Field

from lockbox.facts.bounds import Uses
from lockbox.facts.enumerations import ApproveMeans, AuthMethod, CaseCheck, Mode, Reason, SignInKind
from lockbox.notifications.mail_text import duration
from lockbox.requests.policy_parts import (
    DAY,
    HARD_BREAK_GLASS_LIMIT,
    HOUR,
    AccessWindow,
    AnswerWindow,
    Approvals,
    ApprovalStage,
    BreakGlassNumber,
    BreakGlassPeople,
    BreakGlassServices,
    BreakGlassWindow,
    CasePatterns,
    Characters,
    Comments,
    Countries,
    EscalationMoments,
    Moments,
    OverdueFinding,
    PasskeyWait,
    PolicyPart,
    ReasonedDecision,
    Reasons,
    RequesterMeans,
    SignInAge,
    Stages,
    StartAhead,
    Stricter,
    Switch,
    Term,
    Tiers,
    UnconfirmedCase,
    WarningTime,
    fits_case,
)
from lockbox.text_rules import Instant

COUNTRIES, SIGN_IN = "countries", "sign_in"
NOWHERE = "the vendor's directory has no location for this engineer"
STRONG = frozenset({AuthMethod.OIDC, AuthMethod.PASSKEY, AuthMethod.SAMPLE})
PERSONS_SIGN_INS = frozenset({SignInKind.SESSION, SignInKind.PROVIDER_TOKEN, SignInKind.DEVICE_LOGIN})
STRICTNESS = (Mode.OFF, Mode.OBSERVE, Mode.ENFORCE)
UNVERIFIED = (
    "The customer's policy was changed in the database, and not by Lockbox: no request is submitted or opened under "
    "it. An admin of the customer has to save the whole policy again, and an operator has to look into the alarm."
)


class Terms(PolicyPart):
    """Complete terms for one request; windows, `closing_warning` and ages of sign-ins are in seconds.

    The defaults are those of Microsoft 365: an answer within 12 hours, access for at most 4. The hard limits hold for
    every tenant. Merging can lead to terms that no one may choose: `reasons` is empty if the merged terms have no
    reason in common, and a tier has no groups if its groups are in earlier tiers.

    Attributes:
        total_access_ceiling: never less than `access_ceiling`.
        quorum: how many approvers' seats must approve, each filled by the approver or a delegate, one person a seat.
        escalation, approval_reminders: in percent of the approval window.
        review_escalation, review_reminders: in percent of the review window.
        case_patterns: if a case is named, its reference has to match every pattern.
        break_glass_services: if empty, no service permits break-glass.
        break_glass_people: who of the vendor may take part in break-glass; None means every engineer and manager.
        countries: where the requester and the requester's office must be; None means anywhere. A place that the
            vendor's directory does not state is outside these countries.
    """

    # `api/glossary.yaml` explains each term, also to people who write policies.
    vendor_review: Annotated[Switch, Term(Stricter.MORE)] = True
    review_window: Annotated[AnswerWindow, Term(Stricter.LESS)] = 4 * HOUR
    approval_window: Annotated[AnswerWindow, Term(Stricter.LESS)] = 12 * HOUR
    access_ceiling: Annotated[AccessWindow, Term(Stricter.LESS)] = 4 * HOUR
    total_access_ceiling: Annotated[AccessWindow, Term(Stricter.LESS, is_later=True)] = 8 * HOUR
    start_ahead: Annotated[StartAhead, Term(Stricter.LESS, is_later=True)] = 7 * DAY
    max_uses: Annotated[Uses | None, Term(Stricter.LESS)] = None
    quorum: Annotated[Approvals, Term(Stricter.MORE)] = 1
    stages: Annotated[Stages, Term(Stricter.STAGES)] = ()
    tiers: Annotated[Tiers, Term(Stricter.TIERS, binds=False)] = ()
    escalation: Annotated[EscalationMoments, Term(Stricter.EARLIEST, binds=False)] = (50, 67, 75, 80)
    approval_reminders: Annotated[Moments, Term(Stricter.UNION, binds=False)] = (50, 83)
    review_reminders: Annotated[Moments, Term(Stricter.UNION, binds=False)] = (50, 83)
    review_escalation: Annotated[EscalationMoments, Term(Stricter.EARLIEST, binds=False)] = (50, 67, 75, 80)
    closing_warning: Annotated[WarningTime, Term(Stricter.MORE, binds=False)] = 600
    report_on_close: Annotated[Switch, Term(Stricter.MORE)] = True
    reasons: Annotated[Reasons, Term(Stricter.INTERSECTION)] = frozenset(Reason)
    require_case: Annotated[Switch, Term(Stricter.MORE)] = False
    case_patterns: Annotated[CasePatterns, Term(Stricter.UNION, is_later=True)] = ()
    unconfirmed_case: Annotated[UnconfirmedCase, Term(Stricter.MORE, is_later=True)] = UnconfirmedCase.ACCEPT
    justification_least: Annotated[Characters, Term(Stricter.MORE)] = 1
    mail_link: Annotated[Switch, Term(Stricter.LESS)] = True
    mail_justification: Annotated[Switch, Term(Stricter.LESS)] = True
    mail_suffices: Annotated[Switch, Term(Stricter.LESS)] = False
    approve_means: Annotated[ApproveMeans, Term(Stricter.MORE)] = ApproveMeans.ATTESTED
    first_passkey_wait: Annotated[PasskeyWait, Term(Stricter.MORE, is_later=True)] = 0
    sign_in_age: Annotated[SignInAge, Term(Stricter.LESS)] = 900
    revoke_sign_in_age: Annotated[SignInAge | None, Term(Stricter.LESS)] = None
    questions_stop_clock: Annotated[Switch, Term(Stricter.LESS)] = False
    comment_required: Annotated[Comments, Term(Stricter.UNION)] = frozenset({ReasonedDecision.DENY})
    break_glass_services: Annotated[BreakGlassServices, Term(Stricter.INTERSECTION, is_later=True)] = ()
    break_glass_people: Annotated[BreakGlassPeople | None, Term(Stricter.INTERSECTION, is_later=True)] = None
    break_glass_ceiling: Annotated[BreakGlassWindow, Term(Stricter.LESS, is_later=True)] = HARD_BREAK_GLASS_LIMIT
    break_glass_monthly: Annotated[BreakGlassNumber, Term(Stricter.LESS, is_later=True)] = 2
    overdue_finding: Annotated[OverdueFinding, Term(Stricter.MORE, is_later=True)] = OverdueFinding.BLOCK
    countries: Annotated[Countries | None, Term(Stricter.INTERSECTION, is_later=True)] = None
    requester_means: Annotated[RequesterMeans, Term(Stricter.MORE, is_later=True)] = RequesterMeans.ANY
    requester_sign_in_age: Annotated[SignInAge | None, Term(Stricter.LESS, is_later=True)] = None


DECLARED: Mapping[str, Term] = {
    name: next(part for part in field.metadata if isinstance(part, Term))
    for name, field in Terms.model_fields.items()
}
"""The declared `Term` of each field of `Terms`, by name."""


@dataclass(frozen=True)
class Timing:
    """`ahead` is the time from the submission to the start in seconds, None for an immediate start.

    `used` is the total length in seconds of the windows that the request extends, up to its own start; None if it
    extends no window.
    """

    ahead: int | None = None
    used: int | None = None


AT_ONCE = Timing()


class RequesterPlace(Protocol):
    """None means unknown."""

    @property
    def employing_entity(self) -> str | None: ...

    @property
    def office_country(self) -> str | None: ...

    @property
    def physical_country(self) -> str | None: ...


class RequesterOnRecord(RequesterPlace, Protocol):
    """None means unknown."""

    sign_in: SignInKind | None
    sign_in_means: AuthMethod | None
    signed_in_at: datetime | None


class AskedAccess(Protocol):
    """`access_window` is in seconds."""

    @property
    def reason_code(self) -> str: ...

    @property
    def justification(self) -> str: ...

    @property
    def case_ref(self) -> str | None: ...

    @property
    def access_window(self) -> int: ...


class SubmittedAccess(AskedAccess, RequesterOnRecord, Protocol):
    @property
    def case_check(self) -> str | None: ...

    @property
    def created_at(self) -> datetime: ...


def lacking(  # noqa: PLR0917 - the request, and all that it is judged by
    asked: AskedAccess,
    terms: Terms,
    timing: Timing,
    requester: RequesterOnRecord,
    submitted_at: datetime,
    access_window: int | None = None,
) -> Iterator[tuple[str, str]]:
    """Yield what a request lacks under the terms: the field, and a sentence for the engineer.

    `access_window`, in seconds, replaces the requested window.
    """
    reason, case_ref, window = Reason(asked.reason_code), asked.case_ref, access_window or asked.access_window
    if not terms.reasons:
        yield "reason_code", "The rules of this tenant accept no reason for this request."
    elif reason not in terms.reasons:
        yield (
            "reason_code",
            f"The reason {reason} is not accepted here. Choose one of {', '.join(sorted(terms.reasons))}.",
        )
    if terms.require_case and not (case_ref and case_ref.strip()):
        yield "case_ref", "This tenant requires a support case. Name it."
    if case_ref and terms.case_patterns and not fits_case(terms.case_patterns, case_ref):
        yield "case_ref", f"The case must look like {' and '.join(terms.case_patterns)}."
    if len(asked.justification.strip()) < terms.justification_least:
        yield "justification", f"Write at least {terms.justification_least} characters of justification."
    if window > terms.access_ceiling:
        yield "access_window", f"The access window may be at most {duration(terms.access_ceiling)}."
    elif timing.used is not None and window > (left := total_ceiling(terms) - timing.used):
        yield "access_window", _no_longer(total_ceiling(terms), left)
    yield from _elsewhere(terms, requester)
    yield from _weak_sign_in(terms, requester, submitted_at)
    if timing.ahead is not None:
        yield from _start_defects(terms, timing.ahead)


def _no_longer(total: int, left: int) -> str:
    said = f"A window and its extensions may last at most {duration(total)} together"
    return f"{said}: {duration(left)} are left." if left > 0 else f"{said}, and they do already."


def _start_defects(terms: Terms, ahead: int) -> Iterator[tuple[str, str]]:
    if ahead <= 0:
        yield "not_before", "Access cannot begin in the past. Choose a later start, or none."
    elif not terms.start_ahead:
        yield "not_before", "This tenant accepts no later start. Leave it out."
    elif ahead > terms.start_ahead:
        yield "not_before", f"Access may begin at most {duration(terms.start_ahead)} after the submission."


def total_ceiling(terms: Terms) -> int:
    return max(terms.total_access_ceiling, terms.access_ceiling)


def longest_window(asked: int, terms: Terms, timing: Timing, *, break_glass: bool = False) -> int:
    longest = min(asked, terms.access_ceiling, *([terms.break_glass_ceiling] if break_glass else []))
    return longest if timing.used is None else min(longest, total_ceiling(terms) - timing.used)


def _elsewhere(terms: Terms, requester: RequesterOnRecord) -> Iterator[tuple[str, str]]:
    if (allowed := terms.countries) is None:
        return
    places = (("the requester's office", requester.office_country), ("the requester", requester.physical_country))
    said = dict.fromkeys(f"{where} is in {at}" if at else NOWHERE for where, at in places if at not in allowed)
    if said:
        only = f"from {', '.join(sorted(allowed))} only" if allowed else "from no country"
        yield COUNTRIES, f"This tenant accepts requests {only}; {', and '.join(said)}."


def _weak_sign_in(terms: Terms, requester: RequesterOnRecord, submitted_at: datetime) -> Iterator[tuple[str, str]]:
    is_sample = requester.sign_in_means is AuthMethod.SAMPLE
    is_persons = is_sample or requester.sign_in in PERSONS_SIGN_INS
    if terms.requester_means is RequesterMeans.STRONG and not (is_persons and requester.sign_in_means in STRONG):
        yield SIGN_IN, "This tenant requires the requester to sign in with a passkey or an identity provider."
    elif terms.requester_means is RequesterMeans.SIGN_IN and not is_persons:
        yield SIGN_IN, "This tenant requires the requester to sign in: a token or a service account is not enough."
    age = terms.requester_sign_in_age
    if age is None or is_sample:
        return
    at = requester.signed_in_at
    if not is_persons or at is None or submitted_at - at > timedelta(seconds=age):
        yield SIGN_IN, f"This tenant requires that the requester signed in at most {duration(age)} before submitting."


def fewest(*limits: int | None) -> int | None:
    """None means no limit."""
    return min((limit for limit in limits if limit is not None), default=None)


def lacking_today(asked: SubmittedAccess, terms: Terms, timing: Timing) -> list[tuple[str, str]]:
    """What a pending request lacks under today's terms; a lower ceiling only shortens its window."""
    window = max(longest_window(asked.access_window, terms, timing), 1)
    found = list(lacking(asked, terms, timing, asked, asked.created_at, window))
    demanded = terms.unconfirmed_case is UnconfirmedCase.REFUSE and asked.case_ref
    if demanded and asked.case_check != CaseCheck.CONFIRMED:
        found.append(("case_ref", "This tenant requires that the ticket system confirms the case."))
    return found


def reviewed_first(terms: Terms, mode: Mode) -> bool:
    return terms.vendor_review or mode is not Mode.ENFORCE


def customer_decides(mode: Mode) -> bool:
    return mode is Mode.ENFORCE


def stricter_mode(one: Mode, other: Mode) -> Mode:
    """`enforce` is stricter than `observe`, and `observe` is stricter than `off`."""
    return max(one, other, key=STRICTNESS.index)


def _relaxed(mode: Mode) -> Mode:
    if mode is Mode.ENFORCE:
        raise ValueError("choose observe or off; without consent the tenant decides anyway")
    return mode


class Consent(PolicyPart):
    """Dated consent: the vendor decides until the time `until`, and the tenant decides from then on.

    Until then, mode `observe` notifies the tenant's approvers, admins and webhooks of each window, and mode `off`
    notifies only its admins and webhooks.
    """

    mode: Annotated[Mode, AfterValidator(_relaxed), Field(json_schema_extra={"enum": [Mode.OBSERVE, Mode.OFF]})]
    until: Instant


def effective_mode(mode: Mode, consent: Consent | None, at: datetime) -> Mode:
    """Dated consent relaxes only `enforce`, and ends exactly at `until`."""
    if mode is Mode.ENFORCE and consent is not None and at < consent.until:
        return consent.mode
    return mode


TierGroups = tuple[tuple[str, ...], ...]


def stricter(a: Terms, b: Terms) -> Terms:
    """The stricter of both, term by term; associative, commutative and idempotent.

    Stages are united; each group has the larger quorum and the later step of the two. Each approver group and each
    tier of the vendor's managers is prompted at the earlier of its times in `a` and `b`. If only one of `a` and `b`
    has tiers, these tiers apply.
    """
    ours, theirs = dict(a), dict(b)
    return Terms.model_validate({name: _strictest(term, ours[name], theirs[name]) for name, term in DECLARED.items()})


def loosens(old: Terms, new: Terms) -> bool:
    """Whether the new terms permit anything that the old terms would have prevented.

    Stopping the reports on closed windows counts as loosening, because someone who plans to misuse a window would
    want that.
    """
    values = dict(new)
    return any(value != values[name] for name, value in stricter(old, new) if DECLARED[name].binds)


def _strictest(term: Term, a: Any, b: Any) -> Any:  # noqa: ANN401 - a term's value
    match term.stricter:
        # False is less than True, so min and max also mean "and" and "or".
        case Stricter.LESS | Stricter.MORE:
            return min(a, b, key=_limit) if term.stricter is Stricter.LESS else max(a, b)
        case Stricter.UNION:
            return tuple({*a, *b})
        case Stricter.INTERSECTION:
            return b if a is None else a if b is None else tuple(value for value in a if value in b)
        case Stricter.EARLIEST:
            return tuple(min(moments) for moments in zip_longest(a, b, fillvalue=100))
        case Stricter.STAGES:
            return _stages(a, b)
        case Stricter.TIERS:
            return _tiers(a, b)


def _limit(value: float | None) -> float:
    return math.inf if value is None else value


def _stages(a: tuple[ApprovalStage, ...], b: tuple[ApprovalStage, ...]) -> tuple[ApprovalStage, ...]:
    stages: dict[str, ApprovalStage] = {}
    for stage in (*a, *b):
        other = stages.get(stage.group, stage)
        quorum, order = max(stage.quorum, other.quorum), max(stage.order, other.order)
        stages[stage.group] = ApprovalStage(group=stage.group, quorum=quorum, order=order)
    return tuple(stages.values())


def _tiers(a: TierGroups, b: TierGroups) -> TierGroups:
    # A tier that loses all of its groups stays as an empty tier. If tiers moved up, the result would depend on the
    # order of merging.
    earliest: dict[str, int] = {}
    for tiers in (a, b):
        for position, groups in enumerate(tiers):
            earliest |= {group: min(position, earliest.get(group, position)) for group in groups}
    positions = range(max(earliest.values(), default=-1) + 1)
    return tuple(tuple(group for group, first in earliest.items() if first == position) for position in positions)
