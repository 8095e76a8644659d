"""The common names of browsers, from their user agents."""

from api.portal.user_agents import known_as
from tests.each import each

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


@each(
    ("agent", "words"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Windows"),
        (f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} Chrome/150.0.0.0 Safari/537.36", "Chrome on Linux"),
        (f"Mozilla/5.0 (Windows NT 10.0) {WEBKIT} Chrome/150.0.0.0 Safari/537.36 Edg/150.0", "Edge on Windows"),
        (f"Mozilla/5.0 (Linux; Android 10; K) {WEBKIT} Chrome/150.0.0.0 Mobile Safari/537.36", "Chrome on Android"),
        (
            f"Mozilla/5.0 (iPhone; CPU OS 19_0 like Mac OS X) {WEBKIT} Version/19.0 Safari/604.1",
            "Safari on iPhone",
        ),
        (f"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) {WEBKIT} Version/19.0 Safari/605.1", "Safari on macOS"),
        ("lockbox on desk", "lockbox on desk"),
        ("Chrome/150 by hand", "Chrome/150 by hand"),
        ("x" * 500, "x" * 79 + "\u2026"),
        ("", "An unknown browser"),
        (None, "An unknown browser"),
    ],
)
def test_a_browser_is_named_by_its_common_name(agent: str | None, words: str) -> None:
    assert known_as(agent) == words
