"""The icons of the pages: those of Lucide that are used, as inline SVG in the colour of the text."""

import re
from importlib.resources import files

from markupsafe import Markup

from lockbox.notifications.mail_text import Tone

FOLDER = files("api.portal").joinpath("static", "vendor", "lucide-1.62.0")
SHAPE = re.compile(r"<(?:circle|line|path|polyline|rect)\s[^>]*>")
INLINE = '<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">{shapes}</svg>'

SECTIONS = {
    "/waiting": "inbox",
    "/review": "clipboard-check",
    "/ask": "key-round",
    "/mine": "send",
    "/open": "door-open",
    "/requests": "history",
    "/audit-log": "scroll-text",
    "/statistics": "chart-column",
    "/tenants": "building-2",
    "/operations": "activity",
    "/gates": "shield",
    "/data": "lock",
    "/exclusions": "lock-open",
    "/access-review": "users-round",
}
"""The icon of each section of the menu, by its path."""

TONES = {
    Tone.WAITS: "hourglass",
    Tone.OPEN: "lock-open",
    Tone.REFUSED: "ban",
    Tone.GIVEN_BACK: "undo-2",
    Tone.LAPSED: "timer-off",
}
"""The icon of each kind of state: states differ in shape as well as in colour."""


def _inline(drawing: str) -> Markup:
    shapes = "".join(" ".join(shape.split()) for shape in SHAPE.findall(drawing))
    return Markup(INLINE.format(shapes=shapes))  # noqa: S704 - a file of ours


ICONS = {
    file.name.removesuffix(".svg"): _inline(file.read_text())
    for file in FOLDER.iterdir()
    if file.name.endswith(".svg")
}


def icon(name: str) -> Markup:
    """Return an icon, which stands beside words and is not read out."""
    return ICONS[name]


def section_icon(path: str) -> Markup:
    """Return the icon of a section of the menu."""
    return ICONS[SECTIONS[path]]


def tone_icon(tone: str) -> Markup:
    """Return the icon of a kind of state."""
    return ICONS[TONES[Tone(tone)]]
