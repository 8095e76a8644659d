"""A hint whether two accounts may belong to the same human; nothing is refused because of it."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text

from lockbox.database import UnitOfWork

NAMED = """
SELECT p.id, p.name, p.email, a.email AS further FROM people p
LEFT JOIN addresses a ON a.person_id = p.id AND a.confirmed_at IS NOT NULL AND a.removed_at IS NULL
"""
PEOPLE = text(f"{NAMED} WHERE p.id = ANY(:ids)")


def look_alikes(session: UnitOfWork, person_id: UUID, others: Collection[UUID]) -> list[str]:
    """Return the names, visible to the reader, of the `others` who have the same name or a mailbox in common."""
    wanted = {person_id, *others}
    if len(wanted) == 1:
        return []
    rows = session.execute(PEOPLE, {"ids": list(wanted)})
    return names_like(person_id, [MailboxOwner(row.id, row.name, row.email, row.further) for row in rows])


class MailboxOwner(NamedTuple):
    id: UUID
    name: str
    email: str
    further: str | None


def names_like(person_id: UUID, people: Iterable[MailboxOwner]) -> list[str]:
    named, mailboxes = dict[UUID, str](), defaultdict[UUID, set[str]](set)
    for one in people:
        named[one.id] = one.name
        mailboxes[one.id] |= {one.email, *([one.further] if one.further else ())}
    if person_id not in named:
        return []
    own = named[person_id], mailboxes[person_id]
    return sorted(named[one] for one in named if one != person_id and is_alike(own, (named[one], mailboxes[one])))


def is_alike(one: tuple[str, Collection[str]], other: tuple[str, Collection[str]]) -> bool:
    """Compare names without case and extra spaces, and mailboxes without case and the part after a plus sign."""
    boxes = {_mailbox(address) for address in one[1]} & {_mailbox(address) for address in other[1]}
    return _name(one[0]) == _name(other[0]) or bool(boxes)


def _name(name: str) -> str:
    return " ".join(name.casefold().split())


def _mailbox(address: str) -> str:
    local, _, domain = address.casefold().rpartition("@")
    return f"{local.partition('+')[0]}@{domain}"
