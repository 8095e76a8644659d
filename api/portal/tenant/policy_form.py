"""The form of a policy's default terms.

FormRejected names each mistake by its field, and says what to do about it.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, Field, ValidationError

from api.portal import form_errors, phrases
from lockbox import mistakes
from lockbox.facts.enumerations import ApproveMeans, Reason
from lockbox.notifications.policy_wording import TERMS
from lockbox.requests.policy_parts import ReasonedDecision
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
MINUTES = ("closing_warning", "sign_in_age", "break_glass_ceiling", "revoke_sign_in_age", "requester_sign_in_age")
NUMBERS = ("quorum", "justification_least", "break_glass_monthly", "max_uses")
OPTIONAL = frozenset({"revoke_sign_in_age", "requester_sign_in_age", "max_uses"})
"""The numbers that may be left empty."""
MOMENTS = ("approval_reminders", "review_reminders")
CHOICES = ("requester_means", "unconfirmed_case", "overdue_finding")
SWITCHES = (
    *("vendor_review", "questions_stop_clock", "report_on_close", "require_case"),
    *("mail_link", "mail_justification", "mail_suffices"),
)
LISTS = ("countries", "break_glass_services", "case_patterns")
COMMENTS, PEOPLE, MEANS = "comment_required", "break_glass_people", "approve_means"
NOBODY = "nobody"
TEXT = "text"
"""The field with the whole policy as text."""
NUMBER = re.compile(r"[0-9]{1,9}")
BETWEEN = re.compile(r"[\s,;%]+")
KEY = "[key]"
"""pydantic appends this to the location of an invalid key."""

Place = tuple[int | str, ...]

ShortText = Annotated[str, Field(max_length=200)]
Several = Annotated[list[str], Field(max_length=20)]


class PolicyForm(BaseModel):
    """A window has hours and minutes; the checked boxes are in `switched`."""

    review_window_hours: ShortText = ""
    review_window_minutes: ShortText = ""
    approval_window_hours: ShortText = ""
    approval_window_minutes: ShortText = ""
    access_ceiling_hours: ShortText = ""
    access_ceiling_minutes: ShortText = ""
    total_access_ceiling_hours: ShortText = ""
    total_access_ceiling_minutes: ShortText = ""
    start_ahead_hours: ShortText = ""
    start_ahead_minutes: ShortText = ""
    first_passkey_wait_hours: ShortText = ""
    first_passkey_wait_minutes: ShortText = ""
    closing_warning: ShortText = ""
    sign_in_age: ShortText = ""
    revoke_sign_in_age: ShortText = ""
    max_uses: ShortText = ""
    countries: Annotated[str, Field(max_length=1000)] = ""
    break_glass_services: Annotated[str, Field(max_length=4000)] = ""
    break_glass_people: Annotated[str, Field(max_length=8000)] = ""
    break_glass_ceiling: ShortText = ""
    break_glass_monthly: ShortText = ""
    requester_means: ShortText = ""
    requester_sign_in_age: ShortText = ""
    quorum: ShortText = ""
    justification_least: ShortText = ""
    case_patterns: ShortText = ""
    unconfirmed_case: ShortText = ""
    overdue_finding: ShortText = ""
    approval_reminders: ShortText = ""
    review_reminders: ShortText = ""
    switched: Several = []
    reasons: Several = []
    comment_required: Several = []

    @classmethod
    def of(cls, policy: Policy) -> "PolicyForm":
        values, typed = dict(policy), dict[str, str]()
        for name in WINDOWS:
            hours, rest = divmod(values[name], HOUR)
            typed |= {f"{name}_hours": str(hours), f"{name}_minutes": str(rest // MINUTE)}
        for name in (*MINUTES, *NUMBERS):
            number = values[name]
            typed[name] = "" if number is None else str(number // MINUTE if name in MINUTES else number)
        typed |= {name: str(values[name]) for name in CHOICES}
        typed |= {name: ", ".join(map(str, sorted(values[name] or ()))) for name in (*LISTS, *MOMENTS)}
        typed[PEOPLE] = _people(policy.break_glass_people)
        switched = [name for name in SWITCHES if values[name]]
        switched += [MEANS] if policy.approve_means is ApproveMeans.PASSKEY_SIGNED else []
        return cls(
            **typed,
            switched=switched,
            reasons=sorted(policy.reasons),
            comment_required=sorted(policy.comment_required),
        )

    def onto(self, policy: Policy) -> Policy:
        """Return `policy` with the form's terms. A window with unchanged hours and minutes keeps its seconds."""
        values = policy.model_dump(mode="json")
        terms, wrong = values | self._picked(values), list[tuple[str, str]]()
        for name, read_field in self._numbers(values):
            try:
                terms[name] = read_field()
            except ValueError as error:
                wrong.append((name, str(error)))
        return checked(terms, wrong)

    def _numbers(self, values: Mapping[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
        typed = dict(self)
        for name in WINDOWS:
            yield name, partial(_window, typed[f"{name}_hours"], typed[f"{name}_minutes"], values[name])
        for name in (*MINUTES, *NUMBERS):
            if name in OPTIONAL and not typed[name].strip():
                continue
            number = typed[name]
            yield name, partial(_minutes, number, values[name] or 0) if name in MINUTES else partial(_number, number)
        for name in MOMENTS:
            yield name, partial(percents, typed[name])

    def _picked(self, values: Mapping[str, Any]) -> dict[str, Any]:
        typed, people = dict(self), _named(self.break_glass_people)
        is_signed = MEANS in self.switched
        return {
            **dict.fromkeys(OPTIONAL),
            **{name: name in self.switched for name in SWITCHES},
            **{name: typed[name] or values[name] for name in CHOICES},
            "countries": _named(self.countries.upper()) or None,
            "break_glass_services": _named(self.break_glass_services),
            PEOPLE: [] if people == [NOBODY] else people or None,
            "case_patterns": [one.strip() for one in self.case_patterns.split(",") if one.strip()],
            MEANS: ApproveMeans.PASSKEY_SIGNED if is_signed else ApproveMeans.ATTESTED,
            "reasons": self.reasons,
            COMMENTS: self.comment_required,
        }


PLACES: Mapping[str, str] = {
    **{name: f"{name}-hours" for name in WINDOWS},
    **{name: name for name in (*MINUTES, *NUMBERS, *MOMENTS, *CHOICES, *LISTS, PEOPLE, TEXT)},
    **{name: f"is-{name}" for name in (*SWITCHES, MEANS)},
    "reasons": f"reason-{next(iter(Reason)).value}",
    COMMENTS: f"comment-{ReasonedDecision.APPROVE.value}",
}
"""The place of each term on the page, by the id of its first field."""


def percents(text: str) -> list[int]:
    """An empty text gives an empty list.

    Raises:
        ValueError: says what to write.
    """
    parts = [part for part in BETWEEN.split(text.strip()) if part]
    if not all(NUMBER.fullmatch(part) for part in parts):
        raise ValueError(phrases.NO_PERCENTS)
    return [int(part) for part in parts]


def checked(said: object, wrong: Iterable[tuple[str, str]] = ()) -> Policy:
    """`wrong` are mistakes in terms that could not be parsed."""
    refused, policy = list(wrong), None
    try:
        policy = Policy.model_validate(said)
    except ValidationError as error:
        refused += [_of_term(where, what) for where, what in mistakes.of(error)]
    if policy is None or refused:
        raise form_errors.rejected(phrases.LOOK_AGAIN, refused) from None
    return policy


def read(text: str) -> Policy:
    try:
        return Policy.model_validate(json.loads(text))
    except ValidationError as error:
        lines = [_place(where, what) for where, what in mistakes.of(error)]
    except json.JSONDecodeError as error:
        lines = [phrases.NOT_JSON_AT.format(line=error.lineno, column=error.colno)]
    except (ValueError, RecursionError):
        lines = [phrases.NOT_JSON]
    raise form_errors.rejected(phrases.BAD_POLICY, [(TEXT, line) for line in lines])


def _place(where: Place, what: str) -> str:
    first, _, rest = what.partition(": ")
    if not where and first not in TERMS:
        return what
    named, said = (".".join(map(str, where[:-1] if where[-1] == KEY else where)), what) if where else (first, rest)
    return phrases.IN_PLACE.format(place=f"{named} ({TERMS[named]})" if named in TERMS else named, what=said)


def _of_term(where: Place, what: str) -> tuple[str, str]:
    first, _, rest = (str(where[0]), "", what) if where else what.partition(": ")
    if first == "groups" and len(where) > 1:
        return f"groups.{where[1]}", phrases.OF_GROUP.format(name=where[1], what=rest)
    return (first, rest) if first in TERMS else ("", what)


def _named(text: str) -> list[str]:
    return [one for one in BETWEEN.split(text.strip()) if one]


def _people(some: Collection[UUID] | None) -> str:
    return "" if some is None else ", ".join(map(str, some)) or NOBODY


def _window(hours: str, minutes: str, held: int) -> int:
    return _seconds(60 * _number(hours.strip() or "0") + _number(minutes.strip() or "0"), held)


def _minutes(typed: str, held: int) -> int:
    return _seconds(_number(typed), held)


def _number(typed: str) -> int:
    if not NUMBER.fullmatch(typed.strip()):
        raise ValueError(phrases.NO_NUMBER)
    return int(typed)


def _seconds(minutes: int, held: int) -> int:
    return held if held // MINUTE == minutes else minutes * MINUTE
