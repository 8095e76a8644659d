"""The vendor's brand on our pages: colours as `#rrggbb`, and its logo."""

import re
from pathlib import Path

PAPER = "#f6f7f9"
"""The darkest background of our pages in the light colour scheme."""
LEAST_CONTRAST = 4.5
"""The contrast that text needs against its background (WCAG 2.2, 1.4.3, level AA)."""
MOST_BYTES = 20_000
PNG = b"\x89PNG\r\n\x1a\n"
SVG = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*"
    rb"(?:<!DOCTYPE svg[^>\[]*>\s*)?(?:<!--.*?-->\s*)*<svg[\s>]",
    re.DOTALL,
)
ACTIVE = re.compile(rb"<script|<foreignobject|<!entity|javascript:|[\s\"'/]on[a-z]+\s*=", re.IGNORECASE)


def luminance(colour: str) -> float:
    parts = [part / 255 for part in _parts(colour)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)  # noqa: PLR2004 - sRGB
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def mixed(one: str, other: str, share: float) -> str:
    mixtures = (
        round(first + (second - first) * share) for first, second in zip(_parts(one), _parts(other), strict=True)
    )
    return "#" + "".join(f"{part:02x}" for part in mixtures)


def _parts(colour: str) -> list[int]:
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def check_logo(file: Path) -> Path:
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"name a file that can be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise ValueError(f"choose a picture of at most {MOST_BYTES:,} bytes: it is sent to each telephone")
    if not content.startswith(PNG) and (not SVG.match(content) or ACTIVE.search(content)):
        raise ValueError("name a PNG file, or an SVG file without scripts, event handlers and entities")
    return file


def check_colour(colour: str) -> str:
    if contrast(colour, PAPER) < LEAST_CONTRAST:
        raise ValueError("choose a darker colour: text in it has to stand out from white by 4.5 to 1")
    return colour
