"""When a passkey begins to count that no older passkey has vouched for, whatever happened to the older ones."""

import json
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from harness.authenticator import Authenticator
from harness.people import World, vouch
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import authentication, passkeys, sessions
from lockbox.identity.passkeys import RelyingParty
from lockbox.identity.sessions import ClientInfo, SignInPurpose
from lockbox.sql import new_id
from tests.database.scenes import read, write_unchecked
from tests.database.tenancy import on_the_database
from tests.policy_setup import signed_in

PARTY = RelyingParty("lockbox.example", "https://lockbox.example")
PLACE = ClientInfo("192.0.2.7", "Firefox")
BOGUS = """
INSERT INTO passkeys (id, person_id, credential_id, public_key, sign_count, name, created_at, trusted_at)
SELECT uuidv7(), at_person(), convert_to(uuidv7()::text, 'UTF8'), '', 0, 'bogus', now(), '2100-01-01'
"""

ACCEPTED = """
INSERT INTO invitations (id, tenant_id, email, name, roles, is_recovery, invited_by, created_at, takes_effect_at,
    accepted_at, accepted_by)
SELECT :id, :tenant, 'ann@example.test', 'Ann', '{approver}', false, :tara, now(), now(), :at, :ann
"""
BOUND = "UPDATE passkeys SET only_at = :tenant, mac = NULL"


@pytest.fixture(name="world")
def _world(world: World) -> World:
    world.people["ann"] = signed_in(world, "ann", AuthMethod.OIDC)
    return world


def counts_from(world: World) -> timedelta:
    """Add a passkey for Ann after a sign-in by identity provider, and return how long the passkey must wait."""
    ann = world.people["ann"]
    with world.db.transaction() as session:
        authentication.enter(session, ann)
        _, challenge = sessions.begin_ceremony(session, SignInPurpose.ADD, tied_to=ann.key_id)
        asked = passkeys.registration_challenge(session, ann, PARTY, challenge)
        shown = Authenticator().create(json.loads(asked.options))
        passkeys.add(session, ann, PARTY, challenge=challenge, shown=shown, name="new", place=PLACE)
    waits = "SELECT trusted_at - created_at AS wait FROM passkeys WHERE mac IS NOT NULL ORDER BY id DESC LIMIT 1"
    (row,) = read(world.db, waits)
    found: timedelta = row.wait
    return found


def remove_all(world: World) -> None:
    ann = world.people["ann"]
    with world.db.transaction() as session:
        authentication.enter(session, ann)
        for one in passkeys.mine(session, ann):
            passkeys.remove(session, ann, one.id, PLACE)


def test_an_identity_provider_vouches_only_for_the_first_passkey_of_a_person(world: World) -> None:
    assert counts_from(world) < timedelta(minutes=1)
    assert counts_from(world) > timedelta(hours=71)


def test_removing_older_passkeys_first_does_not_make_a_new_passkey_count_earlier(world: World) -> None:
    counts_from(world)
    remove_all(world)

    assert counts_from(world) > timedelta(hours=71)


@pytest.mark.parametrize("after", [[], [BOGUS]], ids=["", "and adds a row without a mark"])
def test_deleting_older_passkeys_in_the_database_does_not_make_a_new_passkey_count_earlier(
    world: World, after: list[str]
) -> None:
    counts_from(world)
    for statement in ["DELETE FROM passkeys", *after]:
        on_the_database(world, "ann", statement)

    assert counts_from(world) > timedelta(hours=71)


@pytest.mark.parametrize("marked", [True, False])
def test_an_invitation_vouches_for_a_passkey_only_with_a_valid_mac(
    world: World, superuser: Engine, *, marked: bool
) -> None:
    tara = world.people["tara"].person_id
    world.people["ann"] = signed_in(world, "ann", AuthMethod.MAIL)
    ann = world.people["ann"]
    values = {"id": new_id(), "tenant": world.tenant.id, "ann": ann.person_id, "tara": tara, "at": ann.signed_in_at}
    write_unchecked(superuser, ACCEPTED, **values)
    if marked:
        vouch(superuser)

    assert (counts_from(world) < timedelta(minutes=1)) is marked


def test_a_passkey_for_all_tenants_counts_after_72_hours_if_a_passkey_for_one_tenant_exists(
    world: World, superuser: Engine
) -> None:
    counts_from(world)
    write_unchecked(superuser, BOUND, tenant=world.tenant.id)
    vouch(superuser)

    assert counts_from(world) > timedelta(hours=71)
