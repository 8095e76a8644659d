"""Short phrases of the pages that a template cannot make: counted resources, joined actions, times of day."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from urllib.parse import quote

from lockbox.identity.time_zones import local
from lockbox.text_rules import flagged

MOST_QUOTED = 48
"""The longest resource that stands in a sentence; a longer one is only counted there."""

SECONDS = {"hour": 3600, "minute": 60, "second": 1}


def things(resources: Sequence[str]) -> str:
    """Return what a request is about, such as `mailbox:anna@contoso.example` or `2 mailboxes`."""
    if len(resources) == 1 and len(named := flagged(resources[0])) <= MOST_QUOTED:
        return named
    kinds = {resource.partition(":")[0] for resource in resources}
    return counted(len(resources), kinds.pop() if len(kinds) == 1 else "resource")


def counted(number: int, noun: str) -> str:
    """Return a number of something, such as `1 mailbox` or `2 mailboxes`."""
    return f"{number} {noun if number == 1 else _plural(noun)}"


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def joined(words: Sequence[str]) -> str:
    """Return words as a sentence lists them, such as `read, change and export`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""


def full_duration(seconds: int) -> str:
    """Return a length of time in whole words, such as `15 minutes` or `1 hour 30 minutes`."""
    parts = []
    for noun, size in SECONDS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(counted(count, noun))
    return " ".join(parts)


def time_of_day(moment: datetime, at: datetime, zone: str) -> str:
    """Return a time as somebody says it now, such as `22:00 today` or `08:00 on 30 November`."""
    there, here = local(moment, zone), local(at, zone)
    clock = f"{there:%H:%M:%S}" if there.second else f"{there:%H:%M}"
    days = {
        here.date(): "today",
        here.date() + timedelta(days=1): "tomorrow",
        here.date() - timedelta(days=1): "yesterday",
    }
    year = "" if there.year == here.year else f" {there.year}"
    return f"{clock} {days.get(there.date()) or f'on {there.day} {there:%B}{year}'}"


def case_link(template: str | None, case: str | None) -> str:
    """Return the address of a case's page, if the vendor has named one."""
    return template.replace("{case}", quote(case, safe="")) if template and case else ""
