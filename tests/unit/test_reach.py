"""Sentences about how many people could be reached: they count people and not notifications."""

import pytest

from lockbox.notifications.delivery_status import DeliveryReach, number, undelivered_sentence
from tests.each import each


@each(
    ("asked", "reached", "waiting", "unreached", "sentence"),
    [
        (3, 1, 0, 2, "Two of three approvers could not be reached."),
        (3, 0, 1, 2, "Two of three approvers could not be reached; one is still being tried."),
        (5, 1, 2, 2, "Two of five approvers could not be reached; two are still being tried."),
        (2, 1, 0, 1, "One of two approvers could not be reached."),
        (3, 0, 0, 3, "None of three approvers could be reached."),
        (1, 0, 0, 1, "The one approver could not be reached."),
        (100, 86, 0, 14, "14 of 100 approvers could not be reached."),
        (3, 3, 0, 0, ""),
        (3, 0, 3, 0, ""),
        (0, 0, 0, 0, ""),
    ],
)
def test_a_sentence_says_how_many_people_could_not_be_reached(
    asked: int, reached: int, waiting: int, unreached: int, *, sentence: str
) -> None:
    assert DeliveryReach("pending", asked, reached, waiting, unreached).sentence() == sentence


def test_during_a_review_the_sentence_about_unreached_people_counts_managers() -> None:
    assert DeliveryReach("reviewing", 2, 1, 0, 1).sentence() == "One of two managers could not be reached."


def test_after_the_deadline_people_with_pending_prompts_count_as_unreached() -> None:
    past = DeliveryReach("pending", asked=3, reached=1, waiting=2, unreached=0).of_the_past()

    assert (past.waiting, past.unreached) == (0, 2)
    assert past.sentence() == "Two of three approvers could not be reached."


@pytest.mark.parametrize(
    ("reached", "waiting", "nobody"), [(0, 0, True), (1, 0, False), (0, 1, False), (1, 1, False)]
)
def test_no_one_was_notified_if_no_prompt_reached_a_person_and_none_is_pending(
    reached: int, waiting: int, *, nobody: bool
) -> None:
    assert DeliveryReach("pending", 3, reached, waiting, 0).nobody is nobody


def test_people_who_were_not_reached_are_counted() -> None:
    assert undelivered_sentence("pending", 3) == "none of three approvers could be reached"
    assert undelivered_sentence("reviewing", 1) == "the one manager could not be reached"
    assert undelivered_sentence("pending", 0) == "there was no approver to ask"


def test_large_numbers_of_unreached_people_are_written_in_figures() -> None:
    assert (number(12), number(13), number(1200)) == ("twelve", "13", "1,200")
