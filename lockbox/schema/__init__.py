"""Read the schema's SQL files, in the order in which they run."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
FILES = ("tables", "functions", "row_security", "triggers", "grants")
COMMENT = re.compile(r"^--.*\n", re.MULTILINE)


def scripts() -> Iterator[str]:
    """Return the content of each file; each is one script of many statements."""
    for name in FILES:
        yield (FOLDER / f"{name}.sql").read_text(encoding="utf-8")


def fingerprint() -> str:
    """Return a fingerprint of the schema without comments: twelve hex digits of a hash."""
    return hashlib.sha256(COMMENT.sub("", "".join(scripts())).encode()).hexdigest()[:12]
