"""The schema as it is: SQL files, in the order in which they run."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
FILES = ("tables", "functions", "policies", "triggers", "grants")
COMMENT = re.compile(r"^--.*\n", re.MULTILINE)


def scripts() -> Iterator[str]:
    """Return what each file says; each is one script of many statements."""
    for name in FILES:
        yield (FOLDER / f"{name}.sql").read_text(encoding="utf-8")


def fingerprint() -> str:
    """Return what tells this schema from any other: twelve hexadecimal digits of a hash, comments left out."""
    return hashlib.sha256(COMMENT.sub("", "".join(scripts())).encode()).hexdigest()[:12]
