"""Which story comes next: a function of the seed that leaves none out, and of which many come close to a deadline."""

from collections import Counter

from chaos import cards
from chaos.cards import CLOSE, DECK, FURTHER, PLAIN
from tests.each import each

ROUND = len(DECK)


def dealt(seed: int, stories: int) -> list[cards.Card]:
    return [cards.dealt(seed, number) for number in range(stories)]


def test_the_same_seed_deals_the_same_stories_and_another_seed_others() -> None:
    assert dealt(7, ROUND) == dealt(7, ROUND)
    assert len({tuple(dealt(seed, ROUND)) for seed in range(20)}) == 20


def test_each_card_comes_once_before_any_comes_twice() -> None:
    stories = dealt(3, 3 * ROUND)

    for start in range(0, len(stories), ROUND):
        assert Counter(stories[start : start + ROUND]) == Counter(DECK)


@each("seed", range(20))
def test_at_least_a_third_of_any_minute_of_stories_comes_close_to_a_deadline_or_to_another_act(seed: int) -> None:
    stories = [story.ending in CLOSE for story in dealt(seed, 5 * ROUND)]

    assert all(sum(stories[start : start + 60]) >= 20 for start in range(len(stories) - 60))


def test_no_ending_is_both_close_and_plain() -> None:
    assert len({*CLOSE, *PLAIN, *FURTHER}) == len(CLOSE) + len(PLAIN) + len(FURTHER)
