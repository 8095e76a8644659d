"""Check the picture that a vendor sets as its logo."""

import re
from pathlib import Path

MOST_BYTES = 20_000
PNG = b"\x89PNG\r\n\x1a\n"
SVG = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*"
    rb"(?:<!DOCTYPE svg[^>\[]*>\s*)?(?:<!--.*?-->\s*)*<svg[\s>]",
    re.DOTALL,
)
ACTIVE = re.compile(rb"<script|<foreignobject|<!entity|javascript:|[\s\"'/]on[a-z]+\s*=", re.IGNORECASE)


def check_logo(file: Path) -> None:
    """Check that a file is a small PNG or SVG picture.

    Raises:
        ValueError: it is none; the message says what to do.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"name a file that can be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise ValueError(f"choose a picture of at most {MOST_BYTES:,} bytes: it is sent to each telephone")
    if not content.startswith(PNG) and (not SVG.match(content) or ACTIVE.search(content)):
        raise ValueError("name a PNG file, or an SVG file without scripts, event handlers and entities")
