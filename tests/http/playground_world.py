"""A playground in a world: its file, the catcher's folder, and browsers on the machine itself."""

import json
import os
from dataclasses import replace
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

from config.settings import Settings
from lockbox.identity.roles import Caller
from tests.http.portal import Browser, Portal

HOME = "http://localhost:8000"
HERE = "127.0.0.1"
PARTS = ("erin", "max", "vera", "olga", "gate", "tara", "ann", "amir", "aude")


def playground(portal: Portal, folder: Path) -> Portal:
    """Return the pages of the same world with the playground on, over the mails in a folder."""
    (folder / "mail" / "new").mkdir(parents=True)
    people = [_part(portal, key) for key in PARTS]
    file = folder / "playground.json"
    file.write_text(json.dumps({"tenant": "contoso", "maildir": str(folder / "mail"), "people": people}))
    settings = Settings(
        environment="test",
        embedded=True,
        public_url=HOME,
        playground=file,
        sign_ins_per_account=500,
        sign_ins_per_address=500,
    )
    return replace(portal, settings=settings)


def here(portal: Portal) -> Browser:
    return portal.browser(address=HERE)


def put(folder: Path, name: str = "1.M1P1Q1.vm", *, to: str = "ann@contoso.example", **parts: Any) -> None:
    message = EmailMessage(policy=SMTP)
    message["From"] = "Lockbox <lockbox@localhost>"
    message["To"] = to
    message["Subject"] = parts.get("subject", "Approval needed")
    message.set_content(parts.get("text", "Erin asks."))
    if "html" in parts:
        message.add_alternative(parts["html"], subtype="html")
    head = f"X-MailFrom: lockbox@localhost\nX-RcptTo: {to}\n".encode()
    put_raw(folder, name, head + message.as_bytes().replace(b"\r\n", b"\n"))


def put_raw(folder: Path, name: str, content: bytes) -> None:
    """Write a file into the mail catcher's folder, newer than those before it."""
    new = folder / "mail" / "new"
    (new / name).write_bytes(content)
    number = len(list(new.iterdir()))
    os.utime(new / name, (1_900_000_000 + number,) * 2)


def _part(portal: Portal, key: str) -> dict[str, str]:
    caller: Caller = portal.world.people[key]
    (standing,) = caller.standings
    return {
        "key": key,
        "id": str(caller.person_id),
        "name": caller.name,
        "email": portal.address(key),
        "role": standing.role.value,
        "token": portal.world.tokens[key],
    }
