"""The vendor's own look: its colour as a style sheet, and its logo, as the settings name them."""

from functools import cache
from pathlib import Path

from config.brand import LEAST_CONTRAST, contrast, mixed

NIGHT, INK = "#171b23", "#0b1020"
"""What stands behind text on a dark screen, and text on a bright button there: as in `tokens.css`."""

STYLE = """:root {{ --brand: {colour}; --link: {colour}; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --brand: {bright}; --link: {bright}; --on-brand: {ink}; }}
}}
"""


@cache
def style(colour: str) -> bytes:
    """Return the style sheet that puts a colour in the place of ours, brighter on a dark screen."""
    mixtures = (mixed(colour, "#ffffff", share / 100) for share in range(0, 101, 5))
    bright = next(one for one in mixtures if contrast(one, NIGHT) >= LEAST_CONTRAST + 1)
    return STYLE.format(colour=colour, bright=bright, ink=INK).encode()


@cache
def logo(file: Path) -> tuple[bytes, str]:
    """Return the content of the vendor's logo, and what kind of picture it is."""
    content = file.read_bytes()
    return content, "image/png" if content.startswith(b"\x89PNG") else "image/svg+xml"
