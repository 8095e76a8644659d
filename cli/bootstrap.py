"""Create the first operator in an empty database, once and without the API."""

import re
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select

from lockbox.admin import invitations
from lockbox.audit.events import Actor, AuditEvent
from lockbox.database import UnitOfWork, now
from lockbox.identity import api_tokens, tenants
from lockbox.identity.api_tokens import TokenTerms
from lockbox.identity.models import Invitation, Person
from lockbox.identity.roles import Role, Side
from lockbox.notifications import announcements
from lockbox.sql import new_id
from lockbox.text_rules import check_name

LIFETIME = timedelta(hours=24)
ADDRESS = re.compile(r"[^\s@<>]+@[^\s@<>]+")
LONGEST_NAME, LONGEST_ADDRESS = 200, 320

# Other transactions that add a person wait until this one ends, so that two people can't both be the first.
ALONE = text("LOCK TABLE people IN SHARE ROW EXCLUSIVE MODE")


class AlreadyBootstrapped(Exception):  # noqa: N818 - the name says what went wrong
    """The database has or had people."""


class InvalidOperator(Exception):  # noqa: N818 - likewise
    """The message says what to write."""


@dataclass(frozen=True)
class Operator:
    """`code` is the code of an invitation that lets the operator add a passkey."""

    name: str
    token: str
    invitation_id: UUID
    code: str


def first_operator(session: UnitOfWork, *, name: str, email: str, environment: str) -> Operator:
    """Create the first operator, as the database's owner, in a database that never had people.

    The operator gets a token, which can read and revoke, and the code of an invitation. The code signs them in once,
    to add the passkey that opening access requires. Both last 24 hours.
    """
    name = _name(name)
    if not (ADDRESS.fullmatch(email) and email.isascii() and email.isprintable() and len(email) <= LONGEST_ADDRESS):
        raise InvalidOperator("--email: write one mail address, such as olga@vendor.example")
    session.execute(ALONE)
    if session.orm.exec(select(col(Person.id)).limit(1)).first() is not None:
        raise AlreadyBootstrapped(
            "there are people here already, and the first operator is made once: ask an operator"
        )
    person = tenants.add_person(session, name, email, Side.VENDOR)
    tenants.give_role(session, person.id, Role.OPERATOR)
    terms = TokenTerms(environment=environment, lifetime=LIFETIME, name="first token")
    issued = api_tokens.issue(session, person.id, terms)
    invitation_id, code = _invited(session, person)
    announcements.record(
        session,
        AuditEvent(
            at=now(session),
            action="member_added",
            actor=Actor(person.id, Role.OPERATOR, name, channel="bootstrap"),
            facts={"person_id": person.id, "changes": {"roles": f"none → {Role.OPERATOR}"}},
            personal={"member": f"{name} <{email}>"},
        ),
    )
    return Operator(name, issued.text, invitation_id, code)


def _name(name: str) -> str:
    try:
        good = check_name(name)
    except ValueError as wrong:
        raise InvalidOperator(f"--name: {wrong}") from None
    if len(good) > LONGEST_NAME:
        raise InvalidOperator(f"--name: write at most {LONGEST_NAME} characters")
    return good


def _invited(session: UnitOfWork, person: Person) -> tuple[UUID, str]:
    at = now(session)
    invitation = Invitation(
        id=new_id(),
        email=person.email,
        name=person.name,
        roles=[Role.OPERATOR.value],
        is_recovery=False,
        invited_by=person.id,
        created_at=at,
        takes_effect_at=at,
    )
    code = invitations.sealed(session, invitation, at + LIFETIME)
    session.orm.add(invitation)
    session.orm.flush()
    return invitation.id, code
