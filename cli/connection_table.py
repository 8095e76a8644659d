"""Access at targets in the terminal, and the login that an engineer gets there."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cli.terminal import Facts, Listing, Part
from cli.values import Word, moment


def connections(items: Iterable[Mapping[str, Any]]) -> Listing:
    rows = (
        (
            item["id"],
            item["target"],
            item["state"],
            item["failing"],
            moment(item["opened_at"]),
            moment(item["closed_at"]),
        )
        for item in items
    )
    return Listing.of(("Id", "Target", "State", "Failing", "Opened", "Closed"), rows)


def credential(item: Mapping[str, Any], password: str) -> Sequence[Part]:
    """Return a login at a target, and what to do where it is not valid yet."""
    at = {"Address": item["address"], "User": item["role"], "Password": password, "Until": moment(item["until"])}
    login = Facts({"State": Word(item["state"]), **at})
    if item["state"] == "open":
        return (login,)
    failing = f" ({item['failing']})" if item["failing"] else ""
    return login, f"It is not good yet{failing}: look with `lockbox request connections`, and keep the password."
