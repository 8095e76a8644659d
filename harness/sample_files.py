"""Files of deploy/, with their addresses changed."""

from collections.abc import Mapping


def replaced(sample: str, changes: Mapping[str, str]) -> str:
    """Return a sample with texts changed.

    Raises:
        ValueError: it does not have one of them.
    """
    for old, new in changes.items():
        if old not in sample:
            raise ValueError(f"the sample has no {old!r}")
        sample = sample.replace(old, new)
    return sample
