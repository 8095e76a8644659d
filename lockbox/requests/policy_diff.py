"""What a new policy changes, as flat facts for the audit trail."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from lockbox.audit.canonical import instant
from lockbox.requests.policy_rules import Policy, Rule
from lockbox.requests.terms import Terms

ABSENT = "none"


def changes(old: Policy, new: Policy) -> dict[str, str]:
    """Return what differs, as dotted ASCII names with "old → new"; empty where nothing does.

    Names are such as `quorum`, `stages.legal`, `tiers.0`, `rules.0.terms.quorum`, `groups.legal` or `consent`;
    rules and tiers are counted from 0, as in the fields that errors name. Members are ids, windows are seconds, and
    "none" is what is not there. A rule's name is the one free text, and stands in quotes.
    """
    was, now = dict(_facts(old)), dict(_facts(new))
    return {
        name: f"{was.get(name, ABSENT)} → {now.get(name, ABSENT)}"
        for name in was | now
        if was.get(name) != now.get(name)
    }


def _facts(policy: Policy) -> Iterator[tuple[str, str]]:
    yield from _terms("", {name: getattr(policy, name) for name in Terms.model_fields})
    for number, rule in enumerate(policy.rules):
        yield from _rule(f"rules.{number}.", rule)
    for group, members in policy.groups.items():
        yield f"groups.{group}", _listed(members) or "nobody"
    if policy.consent:
        yield "consent", f"{policy.consent.mode} until {instant(policy.consent.until)}"


def _rule(prefix: str, rule: Rule) -> Iterator[tuple[str, str]]:
    yield f"{prefix}name", json.dumps(rule.name, ensure_ascii=False)
    for name, hits in rule.match:
        if hits:
            yield f"{prefix}match.{name}", _listed(hits)
    yield from _terms(f"{prefix}terms.", rule.terms.given())


def _terms(prefix: str, terms: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in terms.items():
        match name:
            case "stages":
                for stage in value:
                    yield f"{prefix}stages.{stage.group}", str(stage.quorum)
            case "tiers":
                for number, groups in enumerate(value):
                    yield f"{prefix}tiers.{number}", _listed(groups)
            case "reasons":
                yield f"{prefix}reasons", _listed(sorted(value))
            case "comment_required":
                yield f"{prefix}{name}", _listed(sorted(value)) or ABSENT
            case "widening" | "review_widening" | "approval_reminders" | "review_reminders":
                yield f"{prefix}{name}", _listed(value) or "never"
            case _:
                yield f"{prefix}{name}", str(value).lower()


def _listed(values: Iterable[object]) -> str:
    return ", ".join(str(value) for value in values)
