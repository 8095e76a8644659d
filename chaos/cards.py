"""Choose the next story: cards of a customer and an ending, dealt from a deck that a seed shuffles; pure."""

import random
from typing import NamedTuple

ENFORCING, TALKATIVE, OBSERVING, STEPWISE, URGENT, OWING, STOPPING = range(7)
"""The places of the customers in the cast. They need one approval; a review and two approvals; a review alone; two
approvals one after the other; break-glass; break-glass while a finding is overdue; break-glass and emergency stops.
"""

CLOSE = {
    "late_yes": (*[ENFORCING] * 8, TALKATIVE),
    "late_endorsement": (TALKATIVE, OBSERVING, OBSERVING),
    "late_no": (ENFORCING, ENFORCING, OBSERVING),
    "late_cancel": (ENFORCING, ENFORCING, TALKATIVE),
    "revoke_at_the_end": (ENFORCING, ENFORCING, OBSERVING),
    "complete_at_the_end": (ENFORCING, ENFORCING, TALKATIVE),
    "yes_and_no": (ENFORCING, ENFORCING),
    "yes_and_cancel": (ENFORCING, ENFORCING),
    "no_and_cancel": (ENFORCING, OBSERVING),
    "endorse_and_cancel": (TALKATIVE, OBSERVING),
    "revoke_and_complete": (ENFORCING, OBSERVING),
    "two_yeses": (TALKATIVE, TALKATIVE),
    "yes_twice": (ENFORCING, ENFORCING),
    "five_times": (ENFORCING, TALKATIVE),
}
"""Endings within 100 ms of a deadline or of each other, and the customers at which they are played."""

PLAIN = {
    "left": (ENFORCING, TALKATIVE, OBSERVING),
    "expired": (ENFORCING, TALKATIVE, OBSERVING),
    "completed": (ENFORCING, TALKATIVE),
    "revoked": (ENFORCING, OBSERVING),
    "denied": (ENFORCING, TALKATIVE),
    "cancelled": (OBSERVING,),
    "nosy": (ENFORCING, TALKATIVE),
}

FURTHER = {
    "extended": (ENFORCING, ENFORCING, OBSERVING),
    "more_and_revoke": (ENFORCING, ENFORCING),
    "later": (ENFORCING, TALKATIVE),
    "case_closed": (ENFORCING, ENFORCING),
    "pre_approved": (ENFORCING, ENFORCING),
    "broken_glass": (URGENT, URGENT, URGENT),
    "owing": (OWING,),
    "stopped": (STOPPING, STOPPING),
    "steps": (STEPWISE, STEPWISE),
    "acknowledged": (ENFORCING,),
}
"""Endings by further ways to access (`further_stories`)."""


class Card(NamedTuple):
    """One story: at which of the customers, and how it ends."""

    customer: int
    ending: str


DECK = tuple(
    Card(customer, ending) for ending, customers in (CLOSE | PLAIN | FURTHER).items() for customer in customers
)


def dealt(seed: int, number: int) -> Card:
    """Return the card of a story. Stories are numbered from 0; each card comes once before any comes twice."""
    turn, place = divmod(number, len(DECK))
    deck = list(DECK)
    random.Random(f"{seed}/{turn}").shuffle(deck)  # noqa: S311 - a seed must replay
    return deck[place]
