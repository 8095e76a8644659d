"""The vendor's brand: its colour in light and dark, and a logo that must be a small picture."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.portal import static
from catalogue.unsafe_settings import UnsafeSettings
from config.brand import LEAST_CONTRAST, MOST_BYTES, PAPER, PNG, check_logo, contrast
from config.settings import load
from tests.unit.test_settings import set_up

COLOURS = st.integers(0, 0xFFFFFF).map("#{:06x}".format)
PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><rect width="1" height="1"/></svg>'


def colours(sheet: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """Return the colours of a style sheet on a light screen, and on a dark one."""
    light, dark = (
        dict(line.strip().split(": ") for line in part.replace("{", ";").split(";") if ": #" in line)
        for part in sheet.decode().split("@media (prefers-color-scheme: dark)")
    )
    return light, dark


@given(COLOURS)
def test_an_accepted_brand_colour_has_contrast_in_both_themes(colour: str) -> None:
    if contrast(colour, PAPER) < LEAST_CONTRAST:
        return

    light, dark = colours(static.brand_style(colour))

    assert light == {"--brand": colour, "--link": colour}
    assert contrast(dark["--link"], static.NIGHT) >= LEAST_CONTRAST
    assert contrast(dark["--on-brand"], dark["--brand"]) >= LEAST_CONTRAST


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PICTURE, "image/svg+xml"),
        (
            b"<?xml version='1.0'?>\n<!-- ours --><!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' ''>" + PICTURE,
            "image/svg+xml",
        ),
        (PNG, "image/png"),
    ],
)
def test_a_small_picture_is_accepted_as_a_brand_logo(tmp_path: Path, content: bytes, kind: str) -> None:
    file = tmp_path / "logo"
    file.write_bytes(content)

    check_logo(file)

    assert static.vendor_logo(file) == (content, kind)


@pytest.mark.parametrize(
    "content",
    [
        PNG + bytes(MOST_BYTES),
        b"",
        b"<html><img src=x></html>",
        b"<html>" + PICTURE + b"</html>",
        PICTURE.replace(b"<rect", b"<script>alert(1)</script><rect"),
        PICTURE.replace(b"<rect", b"<SCRIPT href='//evil.example/x.js'/><rect"),
        PICTURE.replace(b"<rect", b"<rect onload='alert(1)'"),
        PICTURE.replace(b"<rect", b"<rect x='1'onload = 'alert(1)'"),
        PICTURE.replace(b"<rect", b"<a href='javascript:alert(1)'/><rect"),
        PICTURE.replace(b"<rect", b"<foreignObject/><rect"),
        b"<!DOCTYPE svg [<!ENTITY a 'b'>]>" + PICTURE,
    ],
)
def test_a_process_refuses_to_start_with_a_brand_logo_that_is_not_a_small_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    file = tmp_path / "hunter2.svg"
    file.write_bytes(content)
    set_up(monkeypatch, LOCKBOX_VENDOR_LOGO=str(file))

    with pytest.raises(UnsafeSettings, match="LOCKBOX_VENDOR_LOGO") as refused:
        load()

    assert "alert" not in str(refused.value)
