"""How many examples each property is tried with: a few in `make test`, many in `make test-far`."""

import os

from hypothesis import settings

FAR = os.environ.get("HYPOTHESIS_PROFILE") == "far"
NEAR = 12
MORE = 2


def examples(usual: int, near: int = NEAR) -> int:
    """Return how many examples to try: at most `near` in `make test`, a multiple of `usual` in `make test-far`."""
    return usual * MORE if FAR else min(usual, near)


# For properties that say nothing themselves.
settings.register_profile("lockbox", max_examples=examples(100))
settings.load_profile("lockbox")
