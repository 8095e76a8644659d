"""The caught mails to an address, and the codes in them."""

import re

from harness.people import World
from tests.whole.conftest import RunningStack, wait_until

CODE = re.compile(r"^ {4}(\S+(?: \S+)?)$", re.MULTILINE)


def address_of(stage: RunningStack, world: World, name: str) -> str:
    (row,) = stage.rows("SELECT email FROM people WHERE id = :id", id=world.people[name].person_id)
    return str(row.email)


def mails_to(stage: RunningStack, address: str) -> list[str]:
    """Return the texts of all mails to an address, the newest last."""
    bodies = [caught.get_body(("plain",)) for caught in stage.caught.all() if address in str(caught["to"])]
    return [str(body.get_content()) for body in bodies if body]


def codes_to(stage: RunningStack, address: str) -> list[str]:
    """Return the codes that were mailed to an address, which stand on lines of their own."""
    return [code for text in mails_to(stage, address) for code in CODE.findall(text)]


def code_to(stage: RunningStack, address: str) -> str:
    """Wait for a code to be mailed to an address, and return the newest."""
    wait_until(lambda: codes_to(stage, address), f"a code for {address}")
    return codes_to(stage, address)[-1]
