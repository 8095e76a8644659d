"""How a terminal shows a request: one wording and one colour a state."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

WORDS = {
    "reviewing": ("In vendor review", "yellow"),
    "pending": ("Waiting for your answer", "yellow"),
    "active": ("Open", "green"),
    "denied": ("Denied", "red"),
    "cancelled": ("Withdrawn by vendor", "bright_black"),
    "timed_out": ("No answer in time", "bright_black"),
    "completed": ("Given back", "cyan"),
    "revoked": ("Closed by you", "red"),
    "expired": ("Time over", "cyan"),
}
NOTHING = "-"
OUT = Console()


def state(request: Mapping[str, Any]) -> str:
    """Return the state in people's words and its colour, as rich markup."""
    words, colour = WORDS[request["state"]]
    until = f" until {moment(request['deadline_at'])}" if request["open"] else ""
    return f"[{colour}]{words}{until}[/]"


def moment(instant: str | None) -> str:
    """Return an instant of the API to the second."""
    return instant[:19].replace("T", " ") + "Z" if instant else NOTHING


def show_list(items: Iterable[Mapping[str, Any]]) -> None:
    """Print requests as a table."""
    table = Table("Request", "State", "Customer", "Service", "Asked by", "Deadline")
    for item in items:
        who, ends = escape(item["requester"]["name"]), moment(item["deadline_at"])
        table.add_row(item["id"], state(item), item["tenant"], item["service"], who, ends)
    OUT.print(table)


def show_one(item: Mapping[str, Any]) -> None:
    """Print one request."""
    table = Table(show_header=False, box=None)
    rows = {
        "Request": item["id"],
        "State": state(item),
        "Asked by": escape(item["requester"]["name"]),
        "Customer": item["tenant"],
        "Service": item["service"],
        "Resources": escape(", ".join(item["resources"])),
        "Actions": ", ".join(item["actions"]),
        "Why": escape(f"{item['reason_code'].replace('_', ' ')}: {item['justification']}"),
        "Case": escape(item["case_ref"] or NOTHING),
        "Window": f"{item['access_window']} s",
        "Deadline": moment(item["deadline_at"]),
        "Version": str(item["version"]),
    }
    for name, value in rows.items():
        table.add_row(f"[bold]{name}[/]", value)
    OUT.print(table)


def show_events(items: Iterable[Mapping[str, Any]]) -> None:
    """Print a timeline."""
    table = Table("#", "When", "Who", "As", "What", "State", "Deadline", "Comment")
    for item in items:
        who = escape(item["actor"]["name"]) if item["actor"] else "the clock"
        table.add_row(
            str(item["seq"]),
            moment(item["at"]),
            who,
            item["role"],
            item["action"],
            f"{item['from_state'] or NOTHING} → {item['to_state']}",
            moment(item["deadline_at"]),
            escape(item["comment"] or ""),
        )
    OUT.print(table)
