"""Write the gallery: every specimen as HTML, text and whole mail, and an index."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment

from cli.mails.specimens import SENDER, Specimen, specimens
from lockbox.notifications.senders.smtp import compose

INDEX = Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Mails of the lockbox</title></head>
<body style="font:16px/1.5 system-ui,sans-serif;margin:24px">
<h1>Mails of the lockbox</h1>
<table>
{% for one in shown %}
<tr><td>{{ one.name }}</td>
<td>
{% for ending in ("html", "txt", "eml") %}
<a href="{{ one.name }}.{{ ending }}">{{ ending }}</a>
{% endfor %}
</td>
<td>{{ one.mail.subject }}</td></tr>
{% endfor %}
</table>
</body>
</html>
""")


def write(folder: Path) -> int:
    """Write the gallery into a folder, replacing files of the same names; return the number of mails."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = sorted(specimens(), key=lambda one: one.name)
    for one in shown:
        _write(folder, one)
    (folder / "index.html").write_text(_index(shown), encoding="utf-8")
    return len(shown)


def _write(folder: Path, one: Specimen) -> None:
    (folder / f"{one.name}.html").write_text(one.mail.html, encoding="utf-8")
    (folder / f"{one.name}.txt").write_text(one.mail.text, encoding="utf-8")
    (folder / f"{one.name}.eml").write_bytes(compose(one.mail, SENDER).content)


def _index(shown: Sequence[Specimen]) -> str:
    return INDEX.render(shown=shown)
