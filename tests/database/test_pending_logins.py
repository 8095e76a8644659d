"""A pending sign-in is valid only for its purpose and its browser; a row means only what its MAC covers."""

from typing import Any

import pytest
from sqlalchemy import Engine

from harness.people import World
from lockbox.audit.verifier import passkey_assertion
from lockbox.errors import NotSignedIn
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import sessions
from lockbox.identity.credentials import PendingLogin
from lockbox.identity.sessions import MEANING, OVER, LoginStub, SignInPurpose
from lockbox.sql import new_id
from tests.database.scenes import write

# The id and the secret are covered as the browser shows them.
STATES = {"id", "browser_hash", "tries", "proven_at", "used_at", "mac"}
OTHERS: dict[str, Any] = {
    "email": "tara@contoso.example",
    "code_nonce": b"another",
    "issuer": "https://other.example",
    "state_hash": b"another",
    "nonce": "another",
    "verifier": "another",
    "challenge": b"another",
}


def begun(world: World, means: AuthMethod, purpose: SignInPurpose = SignInPurpose.SIGN_IN) -> LoginStub:
    """Begin a sign-in with every column filled."""
    facts = OTHERS | {"email": "ann@contoso.example", "challenge": bytes(32)}
    with world.db.transaction() as session:
        return sessions.begin_login(session, means, purpose, **facts)


def is_found(
    world: World, stub: LoginStub, means: AuthMethod, purpose: SignInPurpose = SignInPurpose.SIGN_IN
) -> bool:
    try:
        with world.db.transaction() as session:
            return sessions.find(session, stub, means, purpose).id == stub.id
    except NotSignedIn:
        return False


def test_the_mac_of_a_pending_sign_in_covers_every_column_that_does_not_track_the_state() -> None:
    assert set(PendingLogin.model_fields) == STATES | set(MEANING)


@pytest.mark.parametrize("column", [one for one in MEANING if one != "means"])
def test_a_pending_sign_in_with_one_changed_column_is_void(world: World, superuser: Engine, column: str) -> None:
    stub = begun(world, AuthMethod.OIDC)
    assert is_found(world, stub, AuthMethod.OIDC)

    if column in {"created_at", "expires_at"}:
        write(superuser, f"UPDATE sign_ins SET {column} = {column} + interval '1 second' WHERE id = :id", id=stub.id)  # noqa: S608 - ours
    else:
        other = OTHERS[column] if column in {"email", "challenge"} else None
        write(superuser, f"UPDATE sign_ins SET {column} = :other WHERE id = :id", id=stub.id, other=other)  # noqa: S608 - ours

    assert not is_found(world, stub, AuthMethod.OIDC)


@pytest.mark.parametrize("means", [AuthMethod.OIDC, AuthMethod.MAIL, AuthMethod.PASSKEY])
def test_a_pending_sign_in_written_without_a_mac_must_be_restarted(
    world: World, superuser: Engine, means: AuthMethod
) -> None:
    stub, unmarked = begun(world, AuthMethod.OIDC), begun(world, means)
    write(superuser, "UPDATE sign_ins SET means = :means WHERE id = :id", means=means.value, id=stub.id)
    write(superuser, "UPDATE sign_ins SET mac = NULL WHERE id = :id", id=unmarked.id)

    assert is_found(world, stub, means) is (means is AuthMethod.OIDC)
    with pytest.raises(NotSignedIn, match=OVER), world.db.transaction() as session:
        sessions.find(session, unmarked, means)


def test_the_mac_of_one_pending_sign_in_is_not_valid_for_another_pending_sign_in(
    world: World, superuser: Engine
) -> None:
    first, second = begun(world, AuthMethod.MAIL), begun(world, AuthMethod.MAIL)

    write(
        superuser,
        "UPDATE sign_ins s SET mac = o.mac, created_at = o.created_at, expires_at = o.expires_at FROM sign_ins o "
        "WHERE s.id = :first AND o.id = :second",
        first=first.id,
        second=second.id,
    )

    assert not is_found(world, first, AuthMethod.MAIL)


@pytest.mark.parametrize("purpose", list(SignInPurpose))
def test_a_pending_sign_in_can_be_used_only_for_the_purpose_for_which_it_was_started(
    world: World, purpose: SignInPurpose
) -> None:
    stub = begun(world, AuthMethod.PASSKEY, purpose)

    assert [one for one in SignInPurpose if is_found(world, stub, AuthMethod.PASSKEY, one)] == [purpose]


def test_a_sign_in_challenge_is_not_stored_and_differs_from_the_challenge_of_a_decision(world: World) -> None:
    own, asked = new_id(), set()
    for purpose in SignInPurpose:
        with world.db.transaction() as session:
            stub, challenge = sessions.begin_ceremony(session, purpose, tied_to=own)
        with world.db.transaction() as session:
            assert sessions.use_ceremony(session, stub, purpose, tied_to=own) == challenge
            assert session.orm.get_one(PendingLogin, stub.id).challenge is None
        assert challenge.startswith(f"lockbox passkey {purpose} 1\n".encode())
        assert len(challenge) > len(passkey_assertion.challenge(b"any statement"))
        asked.add(challenge)
        with pytest.raises(NotSignedIn), world.db.transaction() as session:
            sessions.use_ceremony(session, stub, purpose, tied_to=own)
    assert len(asked) == len(SignInPurpose)
