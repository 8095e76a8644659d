"""The diff of a policy in words, for pages, mails and webhooks; pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from lockbox.text_rules import UUID_FORM

ABSENT = "none"
ARROW = " → "
SECONDS = frozenset(
    {
        *("review_window", "approval_window", "access_ceiling", "closing_warning"),
        *("total_access_ceiling", "start_ahead"),
        *("sign_in_age", "revoke_sign_in_age", "requester_sign_in_age", "break_glass_ceiling", "first_passkey_wait"),
    }
)
"""The terms whose numbers are seconds; all other numbers are shown unchanged."""
TERMS = {
    "vendor_review": "The vendor's managers review first",
    "review_window": "Time for the vendor's review",
    "approval_window": "Time to answer",
    "access_ceiling": "Longest access",
    "total_access_ceiling": "Longest access with extensions",
    "start_ahead": "Maximum lead time",
    "max_uses": "Maximum uses per window",
    "quorum": "Approvals needed",
    "stages": "Must also agree",
    "tiers": "Asked in tier",
    "escalation": "When the next tiers are asked, in percent",
    "approval_reminders": "Reminders to approvers, in percent",
    "review_reminders": "Reminders to the vendor's managers, in percent",
    "review_escalation": "When the vendor's next tiers are asked, in percent",
    "closing_warning": "Warning before a window closes",
    "report_on_close": "A report on each window",
    "reasons": "Accepted reasons",
    "require_case": "Require a support case",
    "case_patterns": "Case number format",
    "unconfirmed_case": "If the ticket system cannot confirm a case",
    "justification_least": "Minimum justification length",
    "mail_link": "Mails link to the request",
    "mail_justification": "Mails quote the justification",
    "mail_suffices": "A code from a mail is enough to approve",
    "approve_means": "Proof of an approval",
    "first_passkey_wait": "A person's first passkey approves nothing for",
    "sign_in_age": "Re-authenticate to approve after",
    "revoke_sign_in_age": "Re-authenticate to revoke after",
    "comment_required": "Reason required to",
    "countries": "Allowed countries",
    "requester_means": "How the requester must sign in",
    "requester_sign_in_age": "Requester must have signed in within",
    "questions_stop_clock": "The time to answer pauses while a question is unanswered",
    "break_glass_services": "Break-glass for",
    "break_glass_people": "Vendor staff allowed to break glass",
    "break_glass_ceiling": "Longest access by break-glass",
    "break_glass_monthly": "Break-glass at most, within 30 days",
    "overdue_finding": "An overdue finding about break-glass",
    "groups": "The group",
    "consent": "The vendor decides for a time",
    "name": "its name",
    "match": "about",
}
PLAIN = {"true": "yes", "false": "no", ABSENT: "not set"}
PROOFS = {"passkey-signed": "signed with the approver's passkey", "attested": "attested by the vendor's server"}


@dataclass(frozen=True)
class DiffLine:
    """A line of a diff; `name` is the path of the changed JSON member, `title` the same in words."""

    name: str
    title: str
    was: str
    now: str


def lines(changes: Mapping[str, str], people: Mapping[UUID, str]) -> Iterator[DiffLine]:
    """Yield the lines of a diff in words; people who are not in `people` stay ids.

    Titles count rules and tiers from 1, as the forms of the pages do; names count them from 0, as JSON does.
    """
    for name, change in changes.items():
        was, _, now = change.partition(ARROW)
        yield DiffLine(name, _title(name), _value(name, was, people), _value(name, now, people))


def _title(name: str) -> str:
    first, *rest = name.split(".")
    if first == "rules" and rest:
        return f"Rule {_place(rest[0])}: {_title('.'.join(part for part in rest[1:] if part != 'terms'))}"
    if first == "tiers":
        rest = [_place(part) for part in rest]
    return " ".join([TERMS.get(first, first), *rest])


def _place(number: str) -> str:
    return str(int(number) + 1) if number.isdecimal() else number


def _value(name: str, value: str, people: Mapping[UUID, str]) -> str:
    if name.rpartition(".")[2] in SECONDS and value.isdigit():
        return _span(int(value))
    if name.rpartition(".")[2] == "approve_means":
        return PROOFS.get(value, value)
    named = UUID_FORM.sub(lambda found: people.get(UUID(found[0]), found[0]), value)
    return PLAIN.get(named, named)


def _span(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    parts = [f"{count} {unit}" for count, unit in ((hours, "h"), (minutes, "min"), (left, "s")) if count]
    return " ".join(parts) or "never"
