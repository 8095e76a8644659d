"""Whether two accounts look like one human's: a hint for people, by which nothing is refused."""

from collections.abc import Collection
from uuid import UUID

from sqlmodel import col, select

from lockbox.database import UnitOfWork
from lockbox.identity.models import Person


def look_alikes(session: UnitOfWork, person_id: UUID, others: Collection[UUID]) -> list[str]:
    """Return the names of those others whose name or mailbox is a person's, as far as the reader sees them."""
    wanted = {person_id, *others}
    rows = session.orm.exec(select(Person.id, Person.name, Person.email).where(col(Person.id).in_(wanted))).all()
    own = next(((name, email) for one, name, email in rows if one == person_id), None)
    if own is None or len(wanted) == 1:
        return []
    same = (name for one, name, email in rows if one != person_id and is_alike(own, (name, email)))
    return sorted(same)


def is_alike(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether names or mailboxes are equal but for case, spaces, and what follows a plus sign in an address."""
    return _name(one[0]) == _name(other[0]) or _mailbox(one[1]) == _mailbox(other[1])


def _name(name: str) -> str:
    return " ".join(name.casefold().split())


def _mailbox(address: str) -> str:
    local, _, domain = address.casefold().rpartition("@")
    return f"{local.partition('+')[0]}@{domain}"
