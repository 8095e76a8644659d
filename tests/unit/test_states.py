"""The words and tones of states: one table, complete, and as the product has them."""

import pytest

from cli.request_table import COLOURS, WORDS
from lockbox.facts.enumerations import State
from lockbox.identity.roles import Side
from lockbox.notifications.mail_text import (
    NOBODY_NOTIFIED,
    OUTLIVED,
    REQUEST_SUBJECTS,
    STATE_WORDINGS,
    Tone,
    approved,
)

PRODUCT = {
    "reviewing": "In vendor review",
    "pending": "Waiting for your approval",
    "active": "Open",
    "denied": "Denied",
    "cancelled": "Cancelled by vendor",
    "timed_out": "Timed out",
    "completed": "Completed",
    "revoked": "Revoked",
    "expired": "Expired",
}


def test_every_state_has_its_words_and_its_tone() -> None:
    assert STATE_WORDINGS.keys() == {*State, NOBODY_NOTIFIED, OUTLIVED}
    assert {name: STATE_WORDINGS[name].to(Side.CUSTOMER) for name in PRODUCT} == PRODUCT
    assert {saying.tone for saying in STATE_WORDINGS.values()} == set(Tone) == set(COLOURS)


def test_the_vendors_people_are_not_told_that_they_are_the_customer() -> None:
    for saying in STATE_WORDINGS.values():
        words = saying.to(Side.VENDOR)
        assert "you" not in words.lower().split()
        assert "your" not in words.lower().split()


def test_a_terminal_has_the_same_words() -> None:
    assert {name: WORDS[name][0] for name in PRODUCT} == PRODUCT | {"pending": "Waiting for the customer's approval"}


@pytest.mark.parametrize("name", ["denied", "cancelled", "timed_out", "completed", "revoked", "expired"])
def test_the_subject_of_a_mail_begins_with_the_words_for_the_end(name: str) -> None:
    assert REQUEST_SUBJECTS[name].startswith(f"{STATE_WORDINGS[name].others}: ")


def test_votes_are_counted_behind_the_words() -> None:
    assert approved(1, 2) == "(1 of 2 approved)"
