"""Accounts that look like one human's."""

import pytest

from lockbox.identity.look_alikes import is_alike

MAX = ("Max Mann", ["max@vendor.example"])


@pytest.mark.parametrize(
    "other",
    [
        ("max  mann", ["mm@vendor.example"]),
        ("M. Mann", ["m@vendor.example", "MAX+eng@vendor.example"]),
        ("Max Mann", ["max@vendor.example"]),
    ],
)
def test_equal_names_and_mailboxes_are_alike(other: tuple[str, list[str]]) -> None:
    assert is_alike(MAX, other)


@pytest.mark.parametrize("other", [("Maxine Mann", ["maxine@vendor.example"]), ("M. Mann", ["max@other.example"])])
def test_others_are_not(other: tuple[str, list[str]]) -> None:
    assert not is_alike(MAX, other)
