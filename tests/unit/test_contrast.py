"""The colours of the pages: text and edges stand out enough for everybody (WCAG 2.2, 1.4.3 and 1.4.11, level AA)."""

import re

import pytest

from api.portal.static import FILES

LIGHT, DARK = (
    dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
    for block in re.findall(r":root \{(.*?)\}", FILES["tokens.css"].plain.decode(), re.DOTALL)[:2]
)
TEXT = [
    ("ink", "ground"),
    ("ink", "paper"),
    ("ink", "alert"),
    ("quiet", "ground"),
    ("quiet", "paper"),
    ("quiet", "alert"),
    ("link", "ground"),
    ("link", "paper"),
    ("brand", "paper"),
    ("on-brand", "brand"),
    ("on-good", "good"),
    ("on-bad", "bad"),
    ("ink", "chip"),
    ("quiet", "chip"),
    ("link", "chip"),
    ("bad", "chip"),
    ("good", "ground"),
    ("good", "paper"),
    ("bad", "ground"),
    ("bad", "paper"),
    ("alert-edge", "ground"),
    ("alert-edge", "paper"),
]
EDGES = [("edge", "paper"), ("edge", "ground"), ("focus", "paper"), ("focus", "ground"), ("alert-edge", "ground")]


def luminance(colour: str) -> float:
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, from 1 to 21."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_edges_of_pages_have_enough_contrast(palette: dict[str, str]) -> None:
    assert {pair: contrast(palette[pair[0]], palette[pair[1]]) for pair in TEXT if _is_weak(palette, pair, 4.5)} == {}
    assert {pair: contrast(palette[pair[0]], palette[pair[1]]) for pair in EDGES if _is_weak(palette, pair, 3)} == {}


def test_light_and_dark_palettes_define_every_colour() -> None:
    assert LIGHT.keys() == DARK.keys()


def _is_weak(palette: dict[str, str], pair: tuple[str, str], least: float) -> bool:
    return contrast(palette[pair[0]], palette[pair[1]]) < least
