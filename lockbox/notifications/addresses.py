"""People's choices for their mails: further addresses, whether they want prompts, and the time zone.

Each change of an address is an event, and the person is notified by mail.
"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, func, select

from lockbox.audit.canonical import Value
from lockbox.database import UnitOfWork, now
from lockbox.errors import AddressTaken, Invalid, NotFound, SignInAgain, TooManyAddresses
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import credential_trust, keyring, sessions, time_zones
from lockbox.identity.credentials import BrowserSession
from lockbox.identity.models import Address, Person
from lockbox.identity.roles import Caller
from lockbox.identity.sessions import ClientInfo
from lockbox.notifications import announcements, mailed_codes
from lockbox.notifications.account_mail import ADDRESS_CODE
from lockbox.sql import new_id

MOST_ADDRESSES = 5
MOST_ADDED = 10
ADDED_IN = timedelta(days=1)
CONFIRMED_IN = timedelta(hours=24)
TAKEN = "This address can't be yours here: it is somebody else's, or you have it already."
WRONG = "That is not the code of the newest mail to this address, or its time is over; remove the address and add it."

IS_TAKEN = text("SELECT is_sign_in(:email) OR is_across(:email, :side)")


def mine(session: UnitOfWork, caller: Caller) -> Sequence[Address]:
    """Oldest first, without the sign-in address."""
    query = select(Address).where(col(Address.person_id) == caller.person_id, col(Address.removed_at).is_(None))
    return session.orm.exec(query.order_by(col(Address.id))).all()


def add(session: UnitOfWork, caller: Caller, place: ClientInfo, email: str, *, prompts: bool = True) -> Address:
    """Add an address and mail a code to it. An unconfirmed address gets no other mail."""
    _held(session, caller)
    at = now(session)
    _few_enough(session, caller)
    theirs = {one.email.lower() for one in mine(session, caller)}
    values = {"email": email, "side": caller.side.value}
    if email.lower() in theirs or session.execute(IS_TAKEN, values).scalar_one():
        raise AddressTaken(TAKEN, field="email")
    address = Address(
        id=new_id(),
        person_id=caller.person_id,
        email=email,
        prompts=prompts,
        code_nonce=keyring.of(session).codes.nonce(),
        created_at=at,
        expires_at=at + CONFIRMED_IN,
    )
    session.orm.add(address)
    session.orm.flush()
    _record_change(session, caller, place, address, "address_added")
    announcements.write_to(
        session,
        address.id,
        template=ADDRESS_CODE,
        tenant_id=None,
        event_id=None,
        at=at,
        until=address.expires_at,
    )
    return address


def confirm(session: UnitOfWork, caller: Caller, place: ClientInfo, address_id: UUID, code: str) -> Address:
    """Idempotent; raises Invalid if the code is wrong or has expired."""
    address = _locked(session, caller, address_id)
    if address.confirmed_at is not None:
        return address
    at = now(session)
    if not mailed_codes.is_code(session, ADDRESS_CODE, address, code) or at >= address.expires_at:
        raise Invalid(WRONG, field="code")
    values = {"email": address.email, "side": caller.side.value}
    if session.execute(IS_TAKEN, values).scalar_one():
        raise AddressTaken(TAKEN)
    _record_change(session, caller, place, address, "address_confirmed")
    address.confirmed_at = at
    return _kept(session, address)


def choose(session: UnitOfWork, caller: Caller, place: ClientInfo, address_id: UUID, *, prompts: bool) -> Address:
    """Set whether an address gets prompts, reminders and outcomes; it always gets receipts and notices of changes."""
    address = _locked(session, caller, address_id)
    if address.prompts is prompts:
        return address
    words = {True: "sent", False: "not sent"}
    _record_change(
        session,
        caller,
        place,
        address,
        "address_changed",
        changes={"prompts": f"{words[address.prompts]} → {words[prompts]}"},
    )
    address.prompts = prompts
    return _kept(session, address)


def remove(session: UnitOfWork, caller: Caller, place: ClientInfo, address_id: UUID) -> None:
    """The removed address gets a notice of its removal."""
    address = _locked(session, caller, address_id)
    _record_change(session, caller, place, address, "address_removed")
    address.removed_at = now(session)
    _kept(session, address)


def _held(session: UnitOfWork, caller: Caller) -> None:
    """Check that the caller's sign-in may change addresses, and lock the caller's addresses until the commit."""
    credential_trust.check_address_change(session, caller)
    session.orm.get_one(Person, caller.person_id, with_for_update=True)


def _few_enough(session: UnitOfWork, caller: Caller) -> None:
    if len(mine(session, caller)) >= MOST_ADDRESSES:
        raise TooManyAddresses(f"There may be {MOST_ADDRESSES} further addresses; remove one.")
    since = now(session) - ADDED_IN
    added = select(func.count()).where(col(Address.person_id) == caller.person_id, col(Address.created_at) > since)
    if session.orm.exec(added).one() >= MOST_ADDED:
        raise TooManyAddresses(f"{MOST_ADDED} addresses were added in a day; wait.")


def _locked(session: UnitOfWork, caller: Caller, address_id: UUID) -> Address:
    _held(session, caller)
    address = session.orm.get(Address, address_id, populate_existing=True)
    if address is None or address.person_id != caller.person_id or address.removed_at is not None:
        raise NotFound("You have no such address.")
    return address


def _record_change(
    session: UnitOfWork, caller: Caller, place: ClientInfo, address: Address, action: str, **facts: Value
) -> None:
    details = {"mailbox": address.email}
    audit_event = sessions.record(session, caller, place, action, personal=details, address_id=address.id, **facts)
    announcements.notify_person(session, audit_event, caller.person_id)


def _kept(session: UnitOfWork, address: Address) -> Address:
    session.orm.add(address)
    session.orm.flush()
    return address


def preferences(session: UnitOfWork, caller: Caller) -> Person:
    return session.orm.get_one(Person, caller.person_id)


def choose_time_zone(session: UnitOfWork, caller: Caller, name: str) -> None:
    person = _signed_in(session, caller)
    if name not in time_zones.names():
        raise Invalid("Choose a time zone by its name, such as Europe/Berlin or UTC.", field="time_zone")
    person.time_zone = name
    session.orm.add(person)
    session.orm.flush()


def adopt_time_zone(session: UnitOfWork, caller: Caller, name: str) -> None:
    """Set the time zone from the browser of a person's first sign-in, unless the person has chosen one."""
    if preferences(session, caller).time_zone != time_zones.DEFAULT or name not in time_zones.names():
        return
    begun = select(func.count()).where(col(BrowserSession.person_id) == caller.person_id)
    if session.orm.exec(begun).one() == 1:
        choose_time_zone(session, caller, name)


def choose_prompts(session: UnitOfWork, caller: Caller, place: ClientInfo, *, wanted: bool) -> None:
    """Set whether the caller, an approver, gets prompts by mail; receipts are always sent.

    A person who declined prompts still gets them if too few other approvers are left to decide.
    """
    person = _signed_in(session, caller)
    if person.wants_prompts is wanted:
        return
    person.wants_prompts = wanted
    session.orm.add(person)
    session.orm.flush()
    sessions.record(session, caller, place, "prompts_wanted" if wanted else "prompts_declined")


def _signed_in(session: UnitOfWork, caller: Caller) -> Person:
    if caller.means is AuthMethod.TOKEN:
        raise SignInAgain("An API token cannot change this. Sign in with a browser or your identity provider.")
    return session.orm.get_one(Person, caller.person_id, with_for_update=True)
