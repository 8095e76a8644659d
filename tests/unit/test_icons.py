"""Page icons: each used icon exists, each existing icon is used, and none can do more than be seen."""

import re
from importlib.resources import files

import pytest

from api.portal import navigation
from api.portal.pages import ICONS, TEMPLATES, TONES, icon, tone_icon
from lockbox.notifications.mail_text import Tone

NAMED = re.compile(
    r"\bicon\(([^)]*)\)|parts\.empty\((.*)\) %\}|\{% macro (?:empty|simple)\((.*)\)|simple\((.*)\) \}\}"
)
QUOTED = re.compile(r'"([a-z0-9-]+)"')
CHANGES_NOTHING = re.compile(
    r'<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">'
    r'(?:<(?:circle|line|path|polyline|rect)(?: [a-z0-9]+="[A-Za-z0-9 .,-]*")+ ?/>)+</svg>'
)
SECTION_ICONS = {section.icon for section in navigation.SECTIONS}


def named_in_templates() -> set[str]:
    """Return every string that may name an icon at the places where templates show icons."""
    folder = files("api.portal").joinpath("templates")
    texts = [file.read_text() for file in folder.iterdir() if file.name.endswith(".html")]
    places = [part for text in texts for found in NAMED.findall(text) for part in found]
    return {name for place in places for name in QUOTED.findall(place)}


def test_each_page_icon_is_used() -> None:
    used = named_in_templates() | SECTION_ICONS | set(TONES.values())

    assert ICONS.keys() - used == set()


def test_each_icon_named_in_a_page_template_exists() -> None:
    folder = files("api.portal").joinpath("templates")
    named = {
        name
        for file in folder.iterdir()
        if file.name.endswith(".html")
        for name in re.findall(r'\bicon\("([^"]+)"\)', file.read_text())
    }

    assert named
    assert named - ICONS.keys() == set()


def test_each_page_section_and_request_state_has_its_own_icon() -> None:
    assert ICONS.keys() >= SECTION_ICONS
    assert len(SECTION_ICONS) == len(navigation.SECTIONS)
    assert len({tone_icon(tone) for tone in Tone}) == len(Tone)


@pytest.mark.parametrize("name", ICONS)
def test_page_icons_are_hidden_from_screen_readers(name: str) -> None:
    assert CHANGES_NOTHING.fullmatch(icon(name))


def test_a_request_state_has_words_next_to_its_icon() -> None:
    shown = TEMPLATES.from_string(
        '{% import "parts.html" as parts %}{{ parts.mark("refused", "it has <b>failed</b>") }}'
    ).render()

    assert str(tone_icon(Tone.REFUSED)) in shown
    assert shown.endswith("</svg>it has &lt;b&gt;failed&lt;/b&gt;</span>")
