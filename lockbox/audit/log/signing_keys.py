"""Read, create and use Ed25519 signing keys in PEM files that only their owner can read."""

import base64
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from lockbox.audit.canonical import decoded
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier.approval_checks import NAME
from lockbox.database import UnitOfWork

LIST_KEY = """
listed AS (
    INSERT INTO audit_keys (key, purpose, first_used_at)
        SELECT CAST(:approval_key AS text), 'approval', CAST(:d_decided_at AS timestamptz)
    WHERE CAST(:approval_key AS text) IS NOT NULL ON CONFLICT DO NOTHING
)"""
"""The CTE that lists the public half of the approval key, so that others can verify."""
OWNER_ALONE = 0o600


@dataclass(frozen=True)
class Ed25519Signature:
    """An Ed25519 signature in base64, and the id in hex of its key."""

    key: str
    signature: str


class ApprovalKeys:
    """The approval keys of this installation: the newest signs, all are trusted.

    Only keys from this process' files are trusted. `audit_keys` is for others to verify with: the database's owner
    could add a key to it.
    """

    def __init__(self, keys: Sequence[Ed25519PrivateKey]) -> None:
        self._newest = keys[0]
        self._publics = [VerifierKey(NAME, key.public_key().public_bytes_raw()) for key in keys]
        self._known = {one.id.hex(): Ed25519PublicKey.from_public_bytes(one.public) for one in self._publics}

    @property
    def public(self) -> VerifierKey:
        """The public half of the signing key."""
        return self._publics[0]

    def sign(self, text: bytes) -> Ed25519Signature:
        """Return the newest key's signature over an approval's signed text."""
        return Ed25519Signature(self.public.id.hex(), base64.b64encode(self._newest.sign(text)).decode())

    def has_signed(self, text: bytes, signature: Ed25519Signature) -> bool:
        """Return whether one of these keys signed exactly this."""
        known = self._known.get(signature.key)
        if known is None:
            return False
        try:
            known.verify(decoded(signature.signature), text)
        except (InvalidSignature, ValueError):
            return False
        return True


@cache
def ephemeral() -> ApprovalKeys:
    """Return a key for the lifetime of this process: for development and tests without a configured key."""
    return ApprovalKeys([Ed25519PrivateKey.generate()])


def of(session: UnitOfWork) -> ApprovalKeys:
    """Return the approval keys of the session's process."""
    return session.keys.get(ApprovalKeys) or ephemeral()


class BadKey(Exception):  # noqa: N818 - it names what was found
    """A file holds no usable signing key; the message names the file and says what to do."""


def read(files: Sequence[Path]) -> list[Ed25519PrivateKey]:
    """Return the keys in these files, in order.

    Raises:
        BadKey: a file cannot be read, or holds something else.
    """
    return [_read(file) for file in files]


def trusted(texts: Iterable[str]) -> dict[bytes, VerifierKey]:
    """Return public keys of the form `name+id+base64` by their four-byte ids, as `checkpoint.verify` takes them.

    Raises:
        BadNote: one is not of that form.
    """
    known = [VerifierKey.read(text) for text in texts]
    return {key.id: key for key in known}


def make(file: Path) -> Ed25519PrivateKey:
    """Create a key in a new file that only its owner can read.

    Raises:
        BadKey: there is such a file already, or it cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE), "wb") as written:
            written.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except FileExistsError:
        raise BadKey(f"{file} is there already; a key is never written over") from None
    except OSError as error:
        raise BadKey(f"{file} cannot be written: {error.strerror}") from None
    return key


def _read(file: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise BadKey(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKey(f"{file} holds no private key in PEM without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"{file} holds a key of another kind than Ed25519; make one by `lockbox operate new-key`")
    return key
