"""Files of deploy/, with their addresses changed."""

from collections.abc import Mapping


def replaced(sample: str, changes: Mapping[str, str]) -> str:
    """Raises ValueError if the sample lacks one of the texts."""
    for old, new in changes.items():
        if old not in sample:
            raise ValueError(f"the sample has no {old!r}")
        sample = sample.replace(old, new)
    return sample
