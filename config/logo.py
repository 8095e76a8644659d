"""Check the picture that a vendor sets as its logo."""

from pathlib import Path

MOST_BYTES = 20_000
PNG, SVG = b"\x89PNG\r\n\x1a\n", b"<svg"


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
    if not content.startswith(PNG) and (SVG not in content or b"<script" in content.lower()):
        raise ValueError("name a PNG file, or an SVG file without a script")
