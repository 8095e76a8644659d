"""Signatures of approvals: made where a window is opened, checked where somebody is let in; never by the database."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import text
from sqlmodel import Session

from lockbox.audit.canonical import decoded
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier.approval_checks import NAME

LIST_KEY = text("""
INSERT INTO audit_keys (key, purpose, first_used_at) VALUES (:key, 'approval', :at) ON CONFLICT DO NOTHING
""")


@dataclass(frozen=True)
class Signature:
    """A signature of Ed25519 in base64, and the id in hex of the key that made it."""

    key: str
    signature: str


class Approvals:
    """The keys of this installation's approvals: the newest signs, all of them are believed.

    What is believed comes from the files of this process alone. The keys in `audit_keys` are there for others to
    check with: whoever owns the database could add one.
    """

    def __init__(self, keys: Sequence[Ed25519PrivateKey]) -> None:
        self._newest = keys[0]
        self._publics = [VerifierKey(NAME, key.public_key().public_bytes_raw()) for key in keys]
        self._known = {one.id.hex(): Ed25519PublicKey.from_public_bytes(one.public) for one in self._publics}

    @property
    def public(self) -> VerifierKey:
        """The public half of the key that signs."""
        return self._publics[0]

    def sign(self, text: bytes) -> Signature:
        """Return the newest key's signature over the signed text of an approval."""
        return Signature(self.public.id.hex(), base64.b64encode(self._newest.sign(text)).decode())

    def has_signed(self, text: bytes, signature: Signature) -> bool:
        """Whether a key of ours has signed exactly this."""
        known = self._known.get(signature.key)
        if known is None:
            return False
        try:
            known.verify(decoded(signature.signature), text)
        except (InvalidSignature, ValueError):
            return False
        return True


@cache
def ephemeral() -> Approvals:
    """Return a key that lasts as long as this process: for development and tests, where none was configured."""
    return Approvals([Ed25519PrivateKey.generate()])


def of(session: Session) -> Approvals:
    """Return the keys of the process that the session is of."""
    found: Approvals | None = session.info.get("approvals")
    return found or ephemeral()


def list_key(session: Session, at: datetime) -> None:
    """List the public half of the key that signs, if this is its first use, so that others can check signatures."""
    session.connection().execute(LIST_KEY, {"key": of(session).public.text, "at": at})
