"""Describe a browser's user agent in a few words."""

import re

from api.portal import phrases

BROWSERS = {
    "Edg": "Edge",
    "EdgA": "Edge",
    "OPR": "Opera",
    "SamsungBrowser": "Samsung Internet",
    "Firefox": "Firefox",
    "FxiOS": "Firefox",
    "CriOS": "Chrome",
    "HeadlessChrome": "Chrome",
    "Chrome": "Chrome",
    "Safari": "Safari",
}
"""Browsers by their token. A browser whose token is also sent by other browsers comes after them."""
SYSTEMS = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "Android": "Android",
    "Windows": "Windows",
    "CrOS": "ChromeOS",
    "Mac OS X": "macOS",
    "Linux": "Linux",
}
TOKEN = re.compile(r"([A-Za-z]+)/[0-9]")
LONGEST = 80


def known_as(agent: str | None) -> str:
    """Such as `Firefox on Windows`. An unknown user agent is returned as it is, cut if it is long."""
    said = agent or ""
    tokens = set(TOKEN.findall(said))
    browser = next((name for token, name in BROWSERS.items() if token in tokens), None)
    if browser is None or not said.startswith("Mozilla/"):
        return (said if len(said) <= LONGEST else f"{said[: LONGEST - 1]}\u2026") or phrases.UNKNOWN_BROWSER
    system = next((name for token, name in SYSTEMS.items() if token in said), None)
    return phrases.BROWSER_ON.format(browser=browser, system=system) if system else browser
