"""Write each mail as HTML, as text and as a message file, and an index that shows the mails light and dark."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from jinja2 import Environment

from devstack.mails.specimens import SENDER, Specimen, specimens
from devstack.mails.writing_styles import PLAIN
from lockbox.notifications.senders.smtp import compose

SHOWN: Mapping[str, str] = {
    "pending": "An approver is asked.",
    "pending-no-link": "The same, where the policy keeps links and the justification out of mails.",
    "pending-steps": "Groups are asked one after the other about an export, whose service declares parameters.",
    "pending-extension": "An approver is asked for more time.",
    "answer_reminder": "Nobody has answered yet.",
    "question": "The engineer is asked a question.",
    "receipt-of-an-approval": "Whoever decided, and the admins, get a receipt.",
    "active": "Access is open.",
    "active-later": "Access was approved, and opens later.",
    "active-pre-approved": "Access is open that was approved beforehand.",
    "closing": "Access is about to end.",
    "report": "Access has ended, and this was done inside.",
    "break_glass": "Two people of the vendor have opened access without the customer.",
    "after_review_reminder": "The customer has to say whether that was justified.",
    "after_review": "The customer has said so.",
    "connection_close_failed": "A target did not close the access.",
    "denied": "The request was denied.",
    "reviewing": "The vendor's manager is asked first.",
    "invitation": "Somebody is invited.",
    "sign_in_code": "Somebody signs in by a code.",
    "pre_approval_proposed": "An admin proposes what approvers are to approve beforehand.",
    "policy_changed": "The customer's policy was changed.",
    "recovery_proposed": "The vendor proposes an admin, to which the customer can object.",
    "audit_digest": "The customer's own copy of a checkpoint of the audit log.",
}
"""The mails of the gallery, and when each is sent."""
ENDINGS = ("html", "txt", "eml")
INDEX = Environment(autoescape=True).from_string("""<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>Mails</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; margin: 24px; max-width: 1100px; }
h2 { font-size: 18px; margin: 32px 0 0; }
iframe { border: 1px solid #888; width: 390px; max-width: 100%; height: 560px; margin: 8px 8px 0 0; }
.light { color-scheme: light; }
.dark { color-scheme: dark; }
</style></head>
<body>
<h1>{{ shown | length }} mails</h1>
{% for one in shown %}
<h2>{{ one.mail.subject }}</h2>
<p>{{ about.get(one.name, one.name) }}
{% for ending in endings %}
<a href="{{ one.name }}.{{ ending }}">{{ ending }}</a>
{% endfor %}
</p>
{% if one.name in about %}
{% for scheme in ("light", "dark") %}
<iframe class="{{ scheme }}" title="{{ one.mail.subject }}, {{ scheme }}" src="{{ one.name }}.html" sandbox
loading="lazy"></iframe>
{% endfor %}
{% endif %}
{% endfor %}
</body>
</html>
""")


def shown(among: Iterable[Specimen]) -> Sequence[Specimen]:
    found = {one.name: one for one in among}
    return [found[_specimen_name(name)] for name in SHOWN]


def write(folder: Path, *, every: bool = False) -> int:
    """Return the number of mails written. Files of an earlier gallery are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    known = sorted(specimens(), key=lambda one: one.name)
    chosen = known if every else shown(known)
    for one in known:
        for ending in ENDINGS:
            (folder / f"{one.name}.{ending}").unlink(missing_ok=True)
    for one in chosen:
        _write(folder, one)
    about = {_specimen_name(name): when for name, when in SHOWN.items()}
    index = INDEX.render(shown=chosen, about=about, endings=ENDINGS)
    (folder / "index.html").write_text(index, encoding="utf-8")
    return len(chosen)


def _specimen_name(name: str) -> str:
    template = name.removesuffix("-no-link")
    return f"{template}-{PLAIN.name}{name.removeprefix(template)}"


def _write(folder: Path, one: Specimen) -> None:
    (folder / f"{one.name}.html").write_text(one.mail.html, encoding="utf-8")
    (folder / f"{one.name}.txt").write_text(one.mail.text, encoding="utf-8")
    (folder / f"{one.name}.eml").write_bytes(compose(one.mail, SENDER).content)
