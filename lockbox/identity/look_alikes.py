"""Whether two accounts look like one human's: a hint for people, by which nothing is refused."""

from collections.abc import Collection
from uuid import UUID

from sqlmodel import col, select

from lockbox.database import UnitOfWork
from lockbox.identity.models import Address, Person


def look_alikes(session: UnitOfWork, person_id: UUID, others: Collection[UUID]) -> list[str]:
    """Return the names of those others whose name or a mailbox is a person's, as far as the reader sees them.

    Mailboxes are those of sign-ins and the further ones that were confirmed.
    """
    wanted = {person_id, *others}
    if len(wanted) == 1:
        return []
    rows = session.orm.exec(select(Person.id, Person.name, Person.email).where(col(Person.id).in_(wanted))).all()
    named, mailboxes = {one: name for one, name, _ in rows}, {one: {email} for one, _, email in rows}
    confirmed = col(Address.confirmed_at).is_not(None), col(Address.removed_at).is_(None)
    further = select(Address.person_id, Address.email).where(col(Address.person_id).in_(named), *confirmed)
    for one, email in session.orm.exec(further).all():
        mailboxes[one].add(email)
    if person_id not in named:
        return []
    own = named[person_id], mailboxes[person_id]
    return sorted(named[one] for one in named if one != person_id and is_alike(own, (named[one], mailboxes[one])))


def is_alike(one: tuple[str, Collection[str]], other: tuple[str, Collection[str]]) -> bool:
    """Whether names, or one mailbox of each, are equal but for case, spaces, and what follows a plus sign."""
    boxes = {_mailbox(address) for address in one[1]} & {_mailbox(address) for address in other[1]}
    return _name(one[0]) == _name(other[0]) or bool(boxes)


def _name(name: str) -> str:
    return " ".join(name.casefold().split())


def _mailbox(address: str) -> str:
    local, _, domain = address.casefold().rpartition("@")
    return f"{local.partition('+')[0]}@{domain}"
