"""The form of a policy's default terms: its fields, and the policy that they make."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from fastapi import Form
from pydantic import ValidationError

from api.portal import form_errors, phrases
from lockbox.facts.enumerations import ApproveMeans, Reason
from lockbox.notifications.policy_wording import TERMS
from lockbox.requests import policy_diff
from lockbox.requests.policy_parts import ReasonedDecision, RequesterMeans
from lockbox.requests.policy_rules import Policy

HOUR, MINUTE = 3600, 60
WINDOWS = (
    "review_window",
    "approval_window",
    "access_ceiling",
    "total_access_ceiling",
    "start_ahead",
    "first_passkey_wait",
)
MINUTES = ("closing_warning", "sign_in_age", "break_glass_ceiling")
NUMBERS = ("quorum", "justification_least", "break_glass_monthly")
MOMENTS = ("approval_reminders", "review_reminders")
SWITCHES = (
    *("vendor_review", "questions_stop_clock", "report_on_close", "require_case"),
    *("mail_link", "mail_justification", "mail_suffices"),
)
COMMENTS = "comment_required"
REVOKE = "revoke_sign_in_age"
USES = "max_uses"
PATTERNS = "case_patterns"
UNCONFIRMED, OVERDUE = "unconfirmed_case", "overdue_finding"
MEANS = "approve_means"
TEXT = "text"
"""The field of the whole policy as text."""
GLASS_SERVICES, GLASS_PEOPLE, NOBODY = "break_glass_services", "break_glass_people", "nobody"
COUNTRIES, REQUESTERS, REQUESTERS_AGE = "countries", "requester_means", "requester_sign_in_age"
NUMBER = re.compile(r"[0-9]{1,9}")
BETWEEN = re.compile(r"[\s,;%]+")
KEY = "[key]"
"""pydantic appends this to the location of an invalid key."""

Place = tuple[int | str, ...]

Field = Annotated[str, Form(max_length=200)]
Several = Annotated[list[str], Form(max_length=20)]


@dataclass(frozen=True)
class PolicyForm:
    """The form as typed: a window is hours and minutes, a checked box is among `switched`."""

    fields: dict[str, str]
    switched: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()

    @classmethod
    def of(cls, policy: Policy) -> "PolicyForm":
        """Return the form of a policy."""
        fields = {name: str(getattr(policy, name)) for name in NUMBERS}
        for name in WINDOWS:
            hours, rest = divmod(getattr(policy, name), HOUR)
            fields |= {f"{name}_hours": str(hours), f"{name}_minutes": str(rest // MINUTE)}
        fields |= {name: str(getattr(policy, name) // MINUTE) for name in MINUTES}
        fields[REVOKE] = _minutes_or_none(policy.revoke_sign_in_age)
        fields[REQUESTERS_AGE] = _minutes_or_none(policy.requester_sign_in_age)
        fields[REQUESTERS] = policy.requester_means.value
        fields[COUNTRIES] = ", ".join(sorted(policy.countries or ()))
        fields[USES] = "" if policy.max_uses is None else str(policy.max_uses)
        fields[GLASS_SERVICES] = ", ".join(policy.break_glass_services)
        fields[GLASS_PEOPLE] = _people(policy.break_glass_people)
        fields |= {name: ", ".join(map(str, getattr(policy, name))) for name in MOMENTS}
        fields[PATTERNS] = ", ".join(policy.case_patterns)
        fields[UNCONFIRMED] = policy.unconfirmed_case.value
        fields[OVERDUE] = policy.overdue_finding.value
        switched = [name for name in SWITCHES if getattr(policy, name)]
        switched += [MEANS] if policy.approve_means is ApproveMeans.PASSKEY_SIGNED else []
        return cls(fields, tuple(switched), tuple(sorted(policy.reasons)), tuple(sorted(policy.comment_required)))

    def onto(self, policy: Policy) -> Policy:
        """Return a policy with the form's terms; everything else stays.

        Seconds that the form has no field for stay too, if the minutes are unchanged.

        Raises:
            FormRejected: with what to do about each field that is wrong.
        """
        said, wrong = policy.model_dump(mode="json") | self._chosen(policy), list[tuple[str, str]]()
        for name, read_field in self._typed(policy):
            try:
                said[name] = read_field()
            except ValueError as error:
                wrong.append((name, str(error)))
        return checked(said, wrong)

    def _typed(self, policy: Policy) -> Iterator[tuple[str, Callable[[], Any]]]:
        """Yield the terms that are typed as numbers, each with what reads it."""
        for name in WINDOWS:
            yield name, partial(self._window, name, getattr(policy, name))
        for name in MINUTES:
            yield name, partial(self._minutes, name, getattr(policy, name))
        for name in (REVOKE, REQUESTERS_AGE):
            if self.fields[name].strip():
                yield name, partial(self._minutes, name, getattr(policy, name) or 0)
        for name in (*NUMBERS, *((USES,) if self.fields[USES].strip() else ())):
            yield name, partial(self._number, name)
        for name in MOMENTS:
            yield name, partial(percents, self.fields[name])

    def _chosen(self, policy: Policy) -> dict[str, Any]:
        """Return the other terms; a number that may be left empty is none."""
        people = _named(self.fields[GLASS_PEOPLE])
        is_signed = MEANS in self.switched
        return {
            **dict.fromkeys((REVOKE, REQUESTERS_AGE, USES)),
            **{name: name in self.switched for name in SWITCHES},
            REQUESTERS: self.fields[REQUESTERS] or RequesterMeans.ANY,
            COUNTRIES: _named(self.fields[COUNTRIES].upper()) or None,
            GLASS_SERVICES: _named(self.fields[GLASS_SERVICES]),
            GLASS_PEOPLE: [] if people == [NOBODY] else people or None,
            UNCONFIRMED: self.fields[UNCONFIRMED] or policy.unconfirmed_case,
            OVERDUE: self.fields[OVERDUE] or policy.overdue_finding,
            PATTERNS: [one.strip() for one in self.fields[PATTERNS].split(",") if one.strip()],
            MEANS: ApproveMeans.PASSKEY_SIGNED if is_signed else ApproveMeans.ATTESTED,
            "reasons": list(self.reasons),
            COMMENTS: list(self.comments),
        }

    def _window(self, name: str, held: int) -> int:
        return _seconds(60 * self._number(name, "_hours") + self._number(name, "_minutes"), held)

    def _minutes(self, name: str, held: int) -> int:
        return _seconds(self._number(name), held)

    def _number(self, name: str, tail: str = "") -> int:
        text = self.fields[name + tail].strip() or ("0" if tail else "")
        if not NUMBER.fullmatch(text):
            raise ValueError(phrases.NO_NUMBER)
        return int(text)


PLACES: Mapping[str, str] = {
    **{name: f"{name}-hours" for name in WINDOWS},
    **{name: name for name in (*MINUTES, *NUMBERS, *MOMENTS, REVOKE, USES, PATTERNS, UNCONFIRMED)},
    **{name: name for name in (GLASS_SERVICES, GLASS_PEOPLE, COUNTRIES, REQUESTERS, REQUESTERS_AGE)},
    **{name: f"is-{name}" for name in (*SWITCHES, MEANS)},
    "reasons": f"reason-{next(iter(Reason)).value}",
    COMMENTS: f"comment-{ReasonedDecision.APPROVE.value}",
    TEXT: TEXT,
}
"""Where on the page each term stands, by the id of its first field."""


async def policy_form_of(
    review_window_hours: Field = "",
    review_window_minutes: Field = "",
    approval_window_hours: Field = "",
    approval_window_minutes: Field = "",
    access_ceiling_hours: Field = "",
    access_ceiling_minutes: Field = "",
    total_access_ceiling_hours: Field = "",
    total_access_ceiling_minutes: Field = "",
    start_ahead_hours: Field = "",
    start_ahead_minutes: Field = "",
    first_passkey_wait_hours: Field = "",
    first_passkey_wait_minutes: Field = "",
    closing_warning: Field = "",
    sign_in_age: Field = "",
    revoke_sign_in_age: Field = "",
    max_uses: Field = "",
    countries: Annotated[str, Form(max_length=1000)] = "",
    break_glass_services: Annotated[str, Form(max_length=4000)] = "",
    break_glass_people: Annotated[str, Form(max_length=8000)] = "",
    break_glass_ceiling: Field = "",
    break_glass_monthly: Field = "",
    requester_means: Field = "",
    requester_sign_in_age: Field = "",
    quorum: Field = "",
    justification_least: Field = "",
    case_patterns: Field = "",
    unconfirmed_case: Field = "",
    overdue_finding: Field = "",
    approval_reminders: Field = "",
    review_reminders: Field = "",
    switched: Several = [],  # noqa: B006 - FastAPI copies it
    reasons: Several = [],  # noqa: B006 - likewise
    comment_required: Several = [],  # noqa: B006 - likewise
) -> PolicyForm:
    """Return the content of the form."""
    fields = {
        "review_window_hours": review_window_hours,
        "review_window_minutes": review_window_minutes,
        "approval_window_hours": approval_window_hours,
        "approval_window_minutes": approval_window_minutes,
        "access_ceiling_hours": access_ceiling_hours,
        "access_ceiling_minutes": access_ceiling_minutes,
        "total_access_ceiling_hours": total_access_ceiling_hours,
        "total_access_ceiling_minutes": total_access_ceiling_minutes,
        "start_ahead_hours": start_ahead_hours,
        "start_ahead_minutes": start_ahead_minutes,
        "first_passkey_wait_hours": first_passkey_wait_hours,
        "first_passkey_wait_minutes": first_passkey_wait_minutes,
        "closing_warning": closing_warning,
        "sign_in_age": sign_in_age,
        REVOKE: revoke_sign_in_age,
        USES: max_uses,
        COUNTRIES: countries,
        GLASS_SERVICES: break_glass_services,
        GLASS_PEOPLE: break_glass_people,
        "break_glass_ceiling": break_glass_ceiling,
        "break_glass_monthly": break_glass_monthly,
        REQUESTERS: requester_means,
        REQUESTERS_AGE: requester_sign_in_age,
        "quorum": quorum,
        "justification_least": justification_least,
        PATTERNS: case_patterns,
        UNCONFIRMED: unconfirmed_case,
        OVERDUE: overdue_finding,
        "approval_reminders": approval_reminders,
        "review_reminders": review_reminders,
    }
    return PolicyForm(fields, tuple(switched), tuple(reasons), tuple(comment_required))


def percents(text: str) -> list[int]:
    """Parse a list of percentages, such as `50, 83`; empty is none.

    Raises:
        ValueError: with what to write, if it is malformed.
    """
    parts = [part for part in BETWEEN.split(text.strip()) if part]
    if not all(NUMBER.fullmatch(part) for part in parts):
        raise ValueError(phrases.NO_PERCENTS)
    return [int(part) for part in parts]


def checked(said: object, wrong: Iterable[tuple[str, str]] = ()) -> Policy:
    """Return the filled-in policy; `wrong` is what could not be read, by term.

    Raises:
        FormRejected: with what to do about each part that is wrong, by its term.
    """
    mistakes, policy = list(wrong), None
    try:
        policy = Policy.model_validate(said)
    except ValidationError as error:
        mistakes += [_of_term(where, what) for where, what in policy_diff.of(error)]
    if policy is None or mistakes:
        raise form_errors.rejected(phrases.LOOK_AGAIN, mistakes) from None
    return policy


def read(text: str) -> Policy:
    """Return the policy written as text.

    Raises:
        FormRejected: with what to do about each part that is wrong, named as in the text.
    """
    try:
        return Policy.model_validate(json.loads(text))
    except ValidationError as error:
        lines = [_place(where, what) for where, what in policy_diff.of(error)]
    except json.JSONDecodeError as error:
        lines = [phrases.NOT_JSON_AT.format(line=error.lineno, column=error.colno)]
    except (ValueError, RecursionError):
        lines = [phrases.NOT_JSON]
    raise form_errors.rejected(phrases.BAD_POLICY, [(TEXT, line) for line in lines])


def _place(where: Place, what: str) -> str:
    """Return an error with its place in a policy's text; errors about a policy as a whole begin with the term."""
    first, _, rest = what.partition(": ")
    if not where and first not in TERMS:
        return what
    named, said = (".".join(map(str, where[:-1] if where[-1] == KEY else where)), what) if where else (first, rest)
    return phrases.IN_PLACE.format(place=f"{named} ({TERMS[named]})" if named in TERMS else named, what=said)


def _of_term(where: Place, what: str) -> tuple[str, str]:
    """Return an error with its term; errors about a policy as a whole begin with the term."""
    first, _, rest = (str(where[0]), "", what) if where else what.partition(": ")
    if first == "groups" and len(where) > 1:
        return f"groups.{where[1]}", phrases.OF_GROUP.format(name=where[1], what=rest)
    return (first, rest) if first in TERMS else ("", what)


def _named(text: str) -> list[str]:
    return [one for one in BETWEEN.split(text.strip()) if one]


def _people(some: Collection[UUID] | None) -> str:
    return "" if some is None else ", ".join(map(str, some)) or NOBODY


def _minutes_or_none(seconds: int | None) -> str:
    return "" if seconds is None else str(seconds // MINUTE)


def _seconds(minutes: int, held: int) -> int:
    return held if held // MINUTE == minutes else minutes * MINUTE
