"""Passkeys: registration, sign-in, and signed decisions (WebAuthn level 2).

`shown` is an authenticator's answer as JSON, and `challenge` is a challenge that is already used up. An answer that
is not accepted raises Invalid, or NotSignedIn at a sign-in.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import text
from sqlmodel import col, select
from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import (
    decode_credential_public_key,
    decoded_public_key_to_cryptography,
    parse_attestation_object,
    parse_authentication_credential_json,
    parse_client_data_json,
    parse_registration_credential_json,
)
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AttestationFormat,
    AuthenticationCredential,
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)
from webauthn.registration.verify_registration_response import VerifiedRegistration

from lockbox.audit.verifier.passkey_assertion import Assertion, fingerprint
from lockbox.database import Query, UnitOfWork, now
from lockbox.errors import Conflict, Invalid, NotFound, NotSignedIn, NotYours, TooManyPasskeys
from lockbox.facts.enumerations import AuthMethod
from lockbox.facts.fact import values_of
from lockbox.identity import authentication, credential_trust, keyring, row_macs, sessions
from lockbox.identity.authentication import CredentialKind
from lockbox.identity.credentials import Passkey
from lockbox.identity.roles import Caller, Side
from lockbox.identity.sessions import ClientInfo
from lockbox.sql import columns, insert, new_id

MOST_PASSKEYS = 20
LONGEST_ID = 1023
LONGEST_NAME = 100
FORMATS = frozenset({AttestationFormat.NONE, AttestationFormat.PACKED})
NOT_ACCEPTED = "The passkey was not accepted; try again, or sign in another way."
NOT_ADDED = "The passkey could not be added; try again."
NOT_VOUCHED = "The signature of your older passkey was not accepted, so nothing was added. Try again."
NOT_SIGNED = "The signature of your passkey was not accepted, so nothing was decided. Try again."
NO_PASSKEY = (
    "You have no passkey that can sign an approval here. Add one on your account page, signed in with a passkey or "
    "an identity provider; one that a mailed code or no older one vouched for can sign after 72 hours."
)

# py_webauthn 3.0 raises these for malformed input, besides its own errors.
MALFORMED = (
    WebAuthnException,
    UnsupportedAlgorithm,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)

ADDED = text(f"{insert(Passkey, but={'last_used_at'})} ON CONFLICT DO NOTHING RETURNING id")

HELD = f"SELECT {columns(Passkey, 'passkeys')} FROM passkeys WHERE person_id = :person_id ORDER BY id"  # noqa: S608 - ours
HELD_BY, LOCKED_OF = text(HELD), text(f"{HELD} FOR NO KEY UPDATE")
USED = text("UPDATE passkeys SET sign_count = :sign_count, last_used_at = :at WHERE id = :id")

# One addition writes an event in each of the person's tenants, so distinct times are counted.
EVER_ADDED = text("SELECT count(DISTINCT at) FROM events WHERE actor_id = :id AND action = 'passkey_added'")


@dataclass(frozen=True)
class RelyingParty:
    domain: str
    origin: str


@dataclass(frozen=True)
class PasskeyChallenge:
    options: str
    challenge: bytes


@dataclass(frozen=True)
class PasskeySignature:
    passkey_id: UUID
    credential_id: bytes
    assertion: Assertion


def check_addition(session: UnitOfWork, caller: Caller) -> None:
    credential_trust.check(session, caller)
    if len(held_by(session, caller.person_id)) >= MOST_PASSKEYS:
        raise TooManyPasskeys(f"You have {MOST_PASSKEYS} passkeys; remove one that you no longer use.")


def has_voucher(session: UnitOfWork, caller: Caller) -> bool:
    """Return whether the caller has an older passkey, whose signature a new passkey needs to count at once."""
    return caller.side is Side.CUSTOMER and bool(_vouchers(session, caller, now(session)))


def vouching_challenge(
    session: UnitOfWork, caller: Caller, party: RelyingParty, challenge: bytes
) -> PasskeyChallenge:
    return _any_of(_vouchers(session, caller, now(session)), party, challenge)


def check_vouched(session: UnitOfWork, caller: Caller, party: RelyingParty, *, challenge: bytes, shown: str) -> None:
    """Check that an older passkey of the caller has signed the addition of a new one."""
    at = now(session)
    keys = _vouchers(session, caller, at, locked=True)
    if _answered(session, keys, party, at=at, challenge=challenge, shown=shown) is None:
        raise Invalid(NOT_VOUCHED)


def registration_challenge(
    session: UnitOfWork, caller: Caller, party: RelyingParty, challenge: bytes
) -> PasskeyChallenge:
    known = held_by(session, caller.person_id)
    options = generate_registration_options(
        challenge=challenge,
        rp_id=party.domain,
        rp_name="Lockbox",
        user_id=caller.person_id.bytes,
        user_name=caller.name,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.REQUIRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
        exclude_credentials=[PublicKeyCredentialDescriptor(id=one.credential_id) for one in known],
    )
    return PasskeyChallenge(options_to_json(options), options.challenge)


def add(
    session: UnitOfWork,
    caller: Caller,
    party: RelyingParty,
    *,
    challenge: bytes,
    shown: str,
    name: str,
    place: ClientInfo,
    is_vouched: bool = False,
) -> bool:
    """Add the passkey that an authenticator created for the caller; return whether it is their first.

    The passkey counts at the same tenants as the sign-in that adds it. `is_vouched` is whether an older passkey has
    signed this addition. If not, and the caller has or had an older passkey, then for three days the new one is worth
    a mailed code, no more.

    Raises:
        Conflict: the passkey is registered already.
    """
    credential_trust.check(session, caller)
    made = _registered(party, challenge, shown)
    is_first = first_added(session, held_by(session, caller.person_id)) is None
    row = Passkey(
        id=new_id(),
        person_id=caller.person_id,
        credential_id=made.credential_id,
        public_key=made.credential_public_key,
        sign_count=made.sign_count,
        name=name,
        created_at=now(session),
        trusted_at=_trusted_from(session, caller, is_vouched=is_vouched),
        only_at=caller.only_at,
    )
    row.mac = keyring.of(session).powers.mark(*row_macs.passkey(row))
    if session.execute(ADDED, row.model_dump(exclude={"last_used_at"})).one_or_none() is None:
        raise Conflict("This passkey is known here already.")
    sessions.record(session, caller, place, "passkey_added")
    return is_first


def ahead_of_held(person_id: UUID, *, locked: bool = False) -> Query:
    return LOCKED_OF if locked else HELD_BY, {"person_id": person_id}


def held_by(session: UnitOfWork, person_id: UUID, *, locked: bool = False) -> list[Passkey]:
    """Oldest first; `locked` locks the rows, for a passkey that is about to sign."""
    rows = session.execute(*ahead_of_held(person_id, locked=locked))
    return [Passkey(**values_of(Passkey, row)) for row in rows]


def first_added(session: UnitOfWork, keys: Iterable[Passkey]) -> datetime | None:
    held = [key for key in keys if row_macs.is_held(session, key.mac, row_macs.passkey(key), key.id)]
    return min((one.created_at for one in held), default=None)


def signers(keys: Iterable[Passkey], tenant_id: UUID, at: datetime) -> list[Passkey]:
    return [one for one in _trusted(keys, at) if one.only_at in {None, tenant_id}]


def sign_in_challenge(party: RelyingParty, challenge: bytes) -> PasskeyChallenge:
    return _any_of((), party, challenge)


def caller_of(session: UnitOfWork, party: RelyingParty, *, challenge: bytes, shown: str) -> Caller:
    """Return the person whose passkey just answered; the transaction then acts as this person.

    If the authenticator counts its signatures, the count has to grow; otherwise the passkey may be a copy.
    """
    try:
        answer = parse_authentication_credential_json(shown)
        _in_our_window(answer.response.client_data_json)
    except MALFORMED:
        raise NotSignedIn(NOT_ACCEPTED) from None
    found = authentication.look_up_credential(session, CredentialKind.PASSKEY, hashes=[answer.raw_id])
    if found is None or found.person_id is None:
        raise NotSignedIn(NOT_ACCEPTED)
    refusal = NotSignedIn(NOT_ACCEPTED, person_id=found.person_id)
    if found.disabled or answer.response.user_handle not in {None, b"", found.person_id.bytes}:
        raise refusal
    key = session.orm.exec(select(Passkey).where(col(Passkey.id) == found.key_id).with_for_update()).one()
    if not row_macs.holds(session, key.mac, row_macs.passkey(key), key.id):
        raise refusal
    try:
        used_at = now(session)
        _use(session, key, answer, party, challenge, at=used_at)
    except MALFORMED:
        raise refusal from None
    return found.caller(AuthMethod.PASSKEY if used_at >= key.trusted_at else AuthMethod.MAIL, used_at)


def signing_challenge(keys: Sequence[Passkey], party: RelyingParty, challenge: bytes) -> PasskeyChallenge:
    if not keys:
        raise NotYours(NO_PASSKEY)
    return _any_of(keys, party, challenge)


def signed(
    session: UnitOfWork,
    keys: Sequence[Passkey],
    party: RelyingParty,
    *,
    at: datetime,
    challenge: bytes,
    shown: str,
) -> PasskeySignature:
    """Return a signature by one of the locked `keys`, checked like a sign-in: host, origin, user and count."""
    made = _answered(session, keys, party, at=at, challenge=challenge, shown=shown)
    if made is None:
        raise Invalid(NOT_SIGNED)
    return made


def public_key(cose: bytes) -> bytes:
    """Convert a public key from COSE to SubjectPublicKeyInfo in DER; raises ValueError if the key is malformed."""
    try:
        key = decoded_public_key_to_cryptography(decode_credential_public_key(cose))
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except MALFORMED:
        raise ValueError("this is no public key of a passkey") from None


def mine(session: UnitOfWork, caller: Caller) -> Sequence[Passkey]:
    """Oldest first; a sign-in for one tenant lists only passkeys for that tenant."""
    theirs = select(Passkey).where(col(Passkey.person_id) == caller.person_id)
    query = theirs.where(sessions.visible_to(caller, col(Passkey.only_at)))
    return session.orm.exec(query.order_by(col(Passkey.id))).all()


def remove(session: UnitOfWork, caller: Caller, passkey_id: UUID, place: ClientInfo) -> None:
    credential_trust.check(session, caller)
    key = next((one for one in mine(session, caller) if one.id == passkey_id), None)
    if key is None:
        raise NotFound("There is no such passkey.")
    session.orm.delete(key)
    session.orm.flush()
    sessions.record(session, caller, place, "passkey_removed")


def _use(
    session: UnitOfWork,
    key: Passkey,
    answer: AuthenticationCredential,
    party: RelyingParty,
    challenge: bytes,
    *,
    at: datetime,
) -> None:
    """Record that a locked passkey answered the challenge. Raises one of the exceptions `MALFORMED` if it did not."""
    verified = verify_authentication_response(
        credential=answer,
        expected_challenge=challenge,
        expected_rp_id=party.domain,
        expected_origin=party.origin,
        credential_public_key=key.public_key,
        credential_current_sign_count=key.sign_count,
        require_user_verification=True,
    )
    session.write(USED, {"id": key.id, "sign_count": verified.new_sign_count, "at": at})


def _any_of(keys: Sequence[Passkey], party: RelyingParty, challenge: bytes) -> PasskeyChallenge:
    options = generate_authentication_options(
        rp_id=party.domain,
        challenge=challenge,
        allow_credentials=[PublicKeyCredentialDescriptor(id=key.credential_id) for key in keys],
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return PasskeyChallenge(options_to_json(options), options.challenge)


def _answered(
    session: UnitOfWork,
    keys: Sequence[Passkey],
    party: RelyingParty,
    *,
    at: datetime,
    challenge: bytes,
    shown: str,
) -> PasskeySignature | None:
    try:
        answer = parse_authentication_credential_json(shown)
        _in_our_window(answer.response.client_data_json)
        key = next((one for one in keys if one.credential_id == answer.raw_id), None)
        if key is None or not row_macs.holds(session, key.mac, row_macs.passkey(key), key.id):
            return None
        _use(session, key, answer, party, challenge, at=at)
        said = answer.response
        parts = (said.authenticator_data, said.client_data_json, said.signature)
        return PasskeySignature(key.id, key.credential_id, Assertion(*parts, fingerprint(public_key(key.public_key))))
    except MALFORMED:
        return None


def _trusted_from(session: UnitOfWork, caller: Caller, *, is_vouched: bool) -> datetime:
    """Return from when a new passkey counts as a passkey.

    No one at the vendor can have an approver's older passkey; all other credentials are within the vendor's reach. So
    a session alone cannot add a passkey that counts at once, even if it removes the older passkey first.
    """
    if is_vouched:
        return now(session)
    if caller.side is Side.CUSTOMER:
        is_left_out = caller.means is AuthMethod.PASSKEY or (
            caller.means is AuthMethod.OIDC and _has_lost_one(session, caller)
        )
        at = now(session)
        if is_left_out or _trusted(held_by(session, caller.person_id), at):
            return at + credential_trust.TRUSTED_AFTER
    return credential_trust.trusted_from(session, caller)


def _has_lost_one(session: UnitOfWork, caller: Caller) -> bool:
    """Return whether the audit log shows more passkeys added by the caller than are left."""
    here = [
        one
        for one in held_by(session, caller.person_id)
        if row_macs.is_held(session, one.mac, row_macs.passkey(one), one.id)
    ]
    added: int = session.execute(EVER_ADDED, {"id": caller.person_id}).scalar_one()
    return added > len(here)


def _vouchers(session: UnitOfWork, caller: Caller, at: datetime, *, locked: bool = False) -> list[Passkey]:
    keys = held_by(session, caller.person_id, locked=locked)
    return [one for one in _trusted(keys, at) if one.only_at in {None, caller.only_at}]


def _trusted(keys: Iterable[Passkey], at: datetime) -> list[Passkey]:
    return [key for key in keys if key.trusted_at <= at]


def _registered(party: RelyingParty, challenge: bytes, shown: str) -> VerifiedRegistration:
    try:
        answer = parse_registration_credential_json(shown)
        _in_our_window(answer.response.client_data_json)
        # Other attestation formats need parsers and roots of their own, and none was requested.
        if parse_attestation_object(answer.response.attestation_object).fmt not in FORMATS:
            raise Invalid(NOT_ADDED)
        made = verify_registration_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=party.domain,
            expected_origin=party.origin,
            require_user_verification=True,
        )
    except MALFORMED:
        raise Invalid(NOT_ADDED) from None
    if not 1 <= len(made.credential_id) <= LONGEST_ID or made.credential_id != answer.raw_id:
        raise Invalid(NOT_ADDED)
    return made


def _in_our_window(client_data: bytes) -> None:
    """Refuse an answer from a cross-origin frame; py_webauthn does not check this."""
    if parse_client_data_json(client_data).cross_origin:
        raise ValueError("asked in a foreign frame")
