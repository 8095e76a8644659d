"""The vendor's colour: it stands out on light and dark screens, and nothing else of it reaches the style sheet."""

import re

import pytest

from api.portal import brand
from config.colours import LEAST_CONTRAST, PAPER, contrast, mixed


@pytest.mark.parametrize("colour", ["#000000", "#2747a8", "#7a0000", "#0b6f38", "#5a3d00", "#00008b"])
def test_a_colour_is_bright_enough_for_a_dark_screen(colour: str) -> None:
    said = brand.style(colour).decode()

    light, dark = re.findall(r"--brand: (#[0-9a-f]{6})", said)
    assert light == colour
    assert contrast(light, PAPER) >= LEAST_CONTRAST
    assert contrast(dark, brand.NIGHT) >= LEAST_CONTRAST
    assert contrast(dark, brand.INK) >= LEAST_CONTRAST


def test_mixtures_and_contrasts_are_those_of_the_standard() -> None:
    assert mixed("#000000", "#ffffff", 0.5) == "#808080"
    assert mixed("#102030", "#ffffff", 0) == "#102030"
    assert round(contrast("#000000", "#ffffff"), 1) == 21.0
    assert round(contrast("#767676", "#ffffff"), 2) == 4.54
