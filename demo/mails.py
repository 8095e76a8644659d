"""The mails that arrived: what the catcher has put into its Maildir since the demo began."""

from collections.abc import Sequence
from email import message_from_bytes
from email.policy import default
from pathlib import Path

from demo.evidence import DemoMail
from demo.story import SUBJECTS


class MailboxReader:
    """Reads each new file once; mails of earlier runs are never looked at."""

    def __init__(self, maildir: Path) -> None:
        self._folder = maildir / "new"
        self._known = set(self._names())
        self._seen: list[DemoMail] = []

    @property
    def seen(self) -> Sequence[DemoMail]:
        """The mails as of the last look."""
        return tuple(self._seen)

    def look(self) -> None:
        """Read what has come since."""
        for name in self._names():
            if name not in self._known:
                self._known.add(name)
                self._seen.append(_read(self._folder / name))

    def _names(self) -> list[str]:
        return sorted(path.name for path in self._folder.iterdir()) if self._folder.is_dir() else []


def _read(path: Path) -> DemoMail:
    message = message_from_bytes(path.read_bytes(), policy=default)
    subject = str(message["Subject"]).strip()
    return DemoMail(
        message_id=str(message["Message-ID"]),
        request_id=str(message["In-Reply-To"]).strip("<> ").partition("@")[0],
        to=str(message["X-RcptTo"]).partition("@")[0],
        state=next((state for state, begins in SUBJECTS.items() if subject.startswith(begins)), "?"),
        subject=subject,
    )
