"""The WebAuthn assertion of a decision that a passkey signed; pure."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lockbox.audit.canonical import decoded

FORMAT, FORMAT_2 = "lockbox decision 1", "lockbox decision 2"
SIGNED, ATTESTED = "passkey-signed", "attested"
"""Who attests a decision: the person, by an assertion, or only the vendor's server."""

GET = "webauthn.get"
FLAGS_AT, SHORTEST_DATA = 32, 37
PRESENT, VERIFIED = 0x01, 0x04
PARTS = ("authenticator_data", "client_data", "signature", "key")


class BadAssertion(Exception):  # noqa: N818 - it names what was found
    pass


@dataclass(frozen=True)
class Assertion:
    """`key` is the fingerprint of the public key."""

    authenticator_data: bytes
    client_data: bytes
    signature: bytes
    key: str

    @classmethod
    def read(cls, said: object) -> Self:
        """Parse the form that events and rows hold; raises BadAssertion."""
        if not isinstance(said, Mapping) or sorted(said) != sorted(PARTS):
            raise BadAssertion("the assertion is malformed")
        data, client, signature, key = (said[name] for name in PARTS)
        if not all(type(one) is str for one in (data, client, signature, key)):
            raise BadAssertion("a part of the assertion is no text")
        return cls(_bytes(data), _bytes(client), _bytes(signature), key)

    @property
    def facts(self) -> dict[str, str]:
        """The form that events and rows hold: base64 for the parts, hex for the key's fingerprint."""
        parts = (self.authenticator_data, self.client_data, self.signature)
        return dict(zip(PARTS, [*(base64.b64encode(part).decode() for part in parts), self.key], strict=True))


def challenge(statement: bytes) -> bytes:
    return hashlib.sha256(statement).digest()


def fingerprint(public_key: bytes) -> str:
    """The SHA-256 in hex of a public key in SubjectPublicKeyInfo form (DER)."""
    return hashlib.sha256(public_key).hexdigest()


def check(
    assertion: Assertion, statement: bytes, public_key: bytes, *, rp_id: str | None = None, origin: str | None = None
) -> None:
    """Raises BadAssertion unless the passkey's holder, verified by the authenticator, signed exactly this statement.

    The challenge must be the statement's SHA-256. `public_key` is SubjectPublicKeyInfo in DER. `rp_id` and `origin`
    are the host and the page's origin for which the passkey must have been used; None skips that check.
    """
    _check_client(assertion.client_data, statement, origin)
    data = assertion.authenticator_data
    if len(data) < SHORTEST_DATA or not data[FLAGS_AT] & PRESENT or not data[FLAGS_AT] & VERIFIED:
        raise BadAssertion("the authenticator did not verify its user")
    if rp_id is not None and data[:FLAGS_AT] != hashlib.sha256(rp_id.encode()).digest():
        raise BadAssertion("the passkey was used for another host")
    if assertion.key != fingerprint(public_key):
        raise BadAssertion("it names another key")
    signed = data + hashlib.sha256(assertion.client_data).digest()
    try:
        _verify(public_key, assertion.signature, signed)
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
        raise BadAssertion("its signature is wrong") from None


def _check_client(client_data: bytes, statement: bytes, origin: str | None) -> None:
    try:
        said: Any = json.loads(client_data)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or said.get("type") != GET:
        raise BadAssertion("it is not the answer to a question for a passkey")
    asked = base64.urlsafe_b64encode(challenge(statement)).rstrip(b"=").decode()
    if said.get("challenge") != asked:
        raise BadAssertion("it is over another statement")
    if said.get("crossOrigin", False) is not False or (origin is not None and said.get("origin") != origin):
        raise BadAssertion("it was requested by a page of another origin")


def _verify(public_key: bytes, signature: bytes, signed: bytes) -> None:
    key = load_der_public_key(public_key)
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        key.verify(signature, signed, ec.ECDSA(SHA256()))
    elif isinstance(key, Ed25519PublicKey):
        key.verify(signature, signed)
    elif isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, signed, padding.PKCS1v15(), SHA256())
    else:
        raise UnsupportedAlgorithm("no algorithm of ours")


def _bytes(text: str) -> bytes:
    try:
        return decoded(text)
    except ValueError:
        raise BadAssertion("a part of the assertion is no canonical base64") from None
