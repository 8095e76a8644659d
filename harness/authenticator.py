"""An authenticator in software (WebAuthn level 2): makes passkeys and answers with them, truthfully or not."""

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from lockbox.database import Database, now
from lockbox.identity import keyring, row_macs
from lockbox.identity.credentials import Passkey
from lockbox.identity.passkeys import RelyingParty
from lockbox.sql import new_id

PRESENT, VERIFIED, BACKUP_ELIGIBLE, BACKED_UP, ATTESTED = 0x01, 0x04, 0x08, 0x10, 0x40
AAGUID = bytes(16)
ES256 = -7


@dataclass
class Credential:
    id: bytes
    key: ec.EllipticCurvePrivateKey
    domain: str
    user: bytes
    count: int = 0


@dataclass
class Authenticator:
    """What a browser and its authenticator answer; each field is a way to lie.

    `counts` is whether the authenticator counts its uses; `domain` replaces the requested domain.
    """

    origin: str = "https://lockbox.example"
    is_verified: bool = True
    is_present: bool = True
    counts: bool = True
    form: str = "none"
    domain: str | None = None
    cross_origin: bool = False
    credentials: list[Credential] = field(default_factory=list)

    def create(self, options: dict[str, Any], *, credential_id: bytes | None = None, **lies: Any) -> str:
        """Make a passkey, and return what the browser posts."""
        credential = Credential(
            credential_id or secrets.token_bytes(32),
            ec.generate_private_key(ec.SECP256R1()),
            self.domain or options["rp"]["id"],
            decoded(options["user"]["id"]),
        )
        self.credentials.append(credential)
        client = self._client("webauthn.create", options, lies)
        attested = AAGUID + len(credential.id).to_bytes(2) + credential.id + cbor2.dumps(cose(credential.key))
        data = self._data(credential, ATTESTED) + attested
        statement = {}
        if self.form == "packed":
            signed = data + hashlib.sha256(client).digest()
            statement = {"alg": ES256, "sig": credential.key.sign(signed, ec.ECDSA(SHA256()))}
        made = cbor2.dumps({"fmt": self.form, "attStmt": statement, "authData": data})
        return self._posted(credential, {"clientDataJSON": encoded(client), "attestationObject": encoded(made)}, lies)

    def get(self, options: dict[str, Any], **lies: Any) -> str:
        """Answer with the newest passkey, and return what the browser posts."""
        credential = self.credentials[-1]
        credential.count += 1
        client = self._client("webauthn.get", options, lies)
        data = self._data(credential, 0)
        signature = credential.key.sign(
            data + hashlib.sha256(client).digest(), ec.ECDSA(SHA256(), deterministic_signing=True)
        )
        response = {
            "clientDataJSON": encoded(client),
            "authenticatorData": encoded(data),
            "signature": encoded(lies.pop("signature", signature)),
            "userHandle": encoded(lies.pop("user", credential.user)),
        }
        return self._posted(credential, response, lies)

    def clone(self) -> "Authenticator":
        """Return a copy that holds the same keys and counts its own uses."""
        return replace(self, credentials=[replace(credential) for credential in self.credentials])

    def _client(self, kind: str, options: dict[str, Any], lies: dict[str, Any]) -> bytes:
        told = {
            "type": lies.pop("kind", kind),
            "challenge": lies.pop("challenge", options["challenge"]),
            "origin": self.origin,
            "crossOrigin": self.cross_origin,
        }
        return json.dumps(told).encode()

    def _data(self, credential: Credential, more: int) -> bytes:
        flags = more | (PRESENT if self.is_present else 0) | (VERIFIED if self.is_verified else 0)
        count = credential.count if self.counts else 0
        domain = self.domain or credential.domain
        return hashlib.sha256(domain.encode()).digest() + bytes([flags]) + count.to_bytes(4)

    def _posted(self, credential: Credential, response: dict[str, str], lies: dict[str, Any]) -> str:
        one = encoded(lies.pop("id", credential.id))
        if lies:
            raise TypeError(f"an authenticator has no such lies: {', '.join(lies)}")
        return json.dumps({"id": one, "rawId": one, "type": "public-key", "response": response})


def enrol(setting: Database, person_id: UUID, party: RelyingParty) -> Authenticator:
    """Give a person a passkey that is already some time old; `setting` bypasses row-level security."""
    authenticator = Authenticator(party.origin)
    authenticator.create({"rp": {"id": party.domain}, "user": {"id": "AA"}, "challenge": "AA"})
    (made,) = authenticator.credentials
    made.user = person_id.bytes
    with setting.transaction() as session:
        at = now(session)
        key = Passkey(
            id=new_id(),
            person_id=person_id,
            credential_id=made.id,
            public_key=cbor2.dumps(cose(made.key)),
            sign_count=0,
            name="laptop",
            created_at=at,
            trusted_at=at,
        )
        key.mac = keyring.of(session).powers.mark(*row_macs.passkey(key))
        session.orm.add(key)
    return authenticator


def cose(key: ec.EllipticCurvePrivateKey) -> dict[int, Any]:
    """Return the public key in COSE form (RFC 9053 section 7.1)."""
    numbers = key.public_key().public_numbers()
    return {1: 2, 3: ES256, -1: 1, -2: numbers.x.to_bytes(32), -3: numbers.y.to_bytes(32)}


def encoded(part: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
