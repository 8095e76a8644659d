"""The keys of a process: for hashes of secrets, mailed codes, row MACs, and signed approvals.

Functions that read or write key files raise BadKey if a file is unusable.
"""

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache, lru_cache
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lockbox.audit.canonical import decoded
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.log.signing_keys import OWNER_ALONE, BadKey
from lockbox.audit.verifier.approval_checks import NAME
from lockbox.database import UnitOfWork

ID_BYTES = 4
KEY_BYTES = 32
NONCE_BYTES = 16
LONG_BYTES = 20
GROUP = 4
CODE_DIGITS = 8
ROOT, CODES, MARKS = "lockbox-credential-key-1", "lockbox-code-key-1", "lockbox-mark-key-1"
"""The first bytes of a key file: its kind and its format version."""
COMMANDS = {ROOT: "new-credential-key", CODES: "code-key", MARKS: "mark-key"}
"""The commands of `lockbox operate` that make a key file of each kind."""

Part = object
"""Values that can be hashed: text, bytes, numbers, ids, times, lists of these, or None."""


class KeyPurpose(StrEnum):
    SECRETS = "secrets"
    POWERS = "powers"
    CODES = "codes"


class Keys:
    """The keys of one purpose, newest first. The newest key makes MACs; MACs under all of them are accepted.

    A MAC is the four-byte id of its key and an HMAC-SHA256.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {_id_of(key): key for key in keys}

    @property
    def newest(self) -> bytes:
        return next(iter(self._keys))

    def mark(self, *parts: Part) -> bytes:
        return self._mark(self.newest, parts)

    def marks(self, *parts: Part) -> list[bytes]:
        """Return the MAC under each key, to look up a row whose MAC was made with an older key."""
        return [self._mark(key, parts) for key in self._keys]

    def is_mark(self, mark: bytes | None, *parts: Part) -> bool:
        """Compare in constant time."""
        if mark is None or mark[:ID_BYTES] not in self._keys:
            return False
        return hmac.compare_digest(mark, self._mark(mark[:ID_BYTES], parts))

    def is_newest(self, mark: bytes) -> bool:
        return mark[:ID_BYTES] == self.newest

    def digest(self, key_id: bytes, *parts: Part) -> bytes | None:
        """None if there is no key with this id."""
        return self._mark(key_id, parts)[ID_BYTES:] if key_id in self._keys else None

    def _mark(self, key_id: bytes, parts: Sequence[Part]) -> bytes:
        return key_id + hmac.digest(self._keys[key_id], _canonical(parts), hashlib.sha256)


class CodeKeys:
    """The keys of mailed codes. A code is derived from the id and nonce of its row.

    The nonce begins with the id of its key: a mail that is sent again has the same code, even after a change of keys.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = Keys(keys)

    def nonce(self) -> bytes:
        return self._keys.newest + secrets.token_bytes(NONCE_BYTES)

    def long(self, nonce: bytes, *about: Part) -> str | None:
        """Return 160 bits as eight groups of four letters and digits, or None if the nonce's key is unknown here."""
        digest = self._keys.digest(nonce[:ID_BYTES], "long", nonce, *about)
        if digest is None:
            return None
        letters = base64.b32encode(digest[:LONG_BYTES]).decode()
        return "-".join(letters[start : start + GROUP] for start in range(0, len(letters), GROUP))

    def short(self, nonce: bytes, *about: Part) -> str | None:
        """Return eight digits, or None if the nonce's key is unknown here."""
        digest = self._keys.digest(nonce[:ID_BYTES], "short", nonce, *about)
        return None if digest is None else f"{int.from_bytes(digest) % 10**CODE_DIGITS:0{CODE_DIGITS}}"


class Keyring:
    """All keys derived from the root keys of an installation, newest root first.

    A worker's keyring is empty: it accepts no MAC, and `can_check` is false. The connector worker's keyring has only
    the MAC keys (`marks`) and no root.
    """

    def __init__(self, roots: Sequence[bytes], marks: Sequence[bytes] = ()) -> None:
        self.can_check = bool(roots or marks)
        self.secrets = Keys([derived(root, KeyPurpose.SECRETS) for root in roots])
        self.powers = Keys([*(derived(root, KeyPurpose.POWERS) for root in roots), *marks])
        self.codes = CodeKeys([derived(root, KeyPurpose.CODES) for root in roots])


MOST_VERIFIED = 10_000
"""How many verified approvals a process remembers: verifying one takes a tenth of the time of an access check."""


@dataclass(frozen=True)
class Ed25519Signature:
    """`signature` is in base64; `key` is the key's id in hex."""

    key: str
    signature: str


class ApprovalKeys:
    """The approval keys of this installation. The newest key signs; signatures by all of them are trusted.

    Only keys from this process's files are trusted, because the database's owner could add a key to the table
    `audit_keys`. A process that approves nothing has only the public keys (`others`), and only verifies.
    """

    def __init__(self, keys: Sequence[Ed25519PrivateKey], others: Sequence[VerifierKey] = ()) -> None:
        publics = [*(VerifierKey(NAME, key.public_key().public_bytes_raw()) for key in keys), *others]
        self.public = publics[0]
        self.listed = self.public.text
        self._newest, self._newest_id = next(iter(keys), None), self.public.id.hex()
        self._known = {public.id.hex(): Ed25519PublicKey.from_public_bytes(public.public) for public in publics}
        self._is_verified = lru_cache(MOST_VERIFIED)(self._verify)

    def sign(self, text: bytes) -> Ed25519Signature:
        if self._newest is None:
            raise BadKey("this process has no private key of approvals")
        return Ed25519Signature(self._newest_id, base64.b64encode(self._newest.sign(text)).decode())

    def has_signed(self, text: bytes, signature: Ed25519Signature) -> bool:
        return self._is_verified(text, signature)

    def _verify(self, text: bytes, signature: Ed25519Signature) -> bool:
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
    """A key for the lifetime of this process, for development and tests."""
    return ApprovalKeys([Ed25519PrivateKey.generate()])


def approval_keys(session: UnitOfWork) -> ApprovalKeys:
    return session.keys.get(ApprovalKeys) or ephemeral()


def derived(root: bytes, purpose: KeyPurpose) -> bytes:
    """Derive a key with HKDF (RFC 5869): the result reveals neither the root nor another key."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=f"lockbox {purpose}".encode()).derive(root)


@cache
def development() -> Keyring:
    """The publicly known keys of development and tests; production refuses to start with them."""
    return Keyring([_DEVELOPMENT])


@cache
def development_codes() -> CodeKeys:
    return CodeKeys([derived(_DEVELOPMENT, KeyPurpose.CODES)])


def of(session: UnitOfWork) -> Keyring:
    return session.keys.get(Keyring) or development()


def read(files: Sequence[Path]) -> Keyring:
    """`files` begin with the newest key."""
    return Keyring([_read(file, ROOT) for file in files])


def read_codes(files: Sequence[Path]) -> CodeKeys:
    """`files` begin with the newest key."""
    return CodeKeys([_read(file, CODES) for file in files])


def read_marks(files: Sequence[Path]) -> Keyring:
    """Read MAC keys. They verify rows, not secrets or codes."""
    return Keyring([], [_read(file, MARKS) for file in files])


def make(file: Path) -> None:
    """Create a root key; an existing file is never overwritten."""
    _write(file, ROOT, secrets.token_bytes(KEY_BYTES))


def make_codes(root_file: Path, file: Path) -> None:
    """Derive the notifications worker's code key into a new file."""
    _write(file, CODES, derived(_read(root_file, ROOT), KeyPurpose.CODES))


def make_marks(root_file: Path, file: Path) -> None:
    """Derive the connector worker's MAC key into a new file."""
    _write(file, MARKS, derived(_read(root_file, ROOT), KeyPurpose.POWERS))


def _write(file: Path, kind: str, key: bytes) -> None:
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ALONE), "w") as written:
            written.write(f"{kind}:{base64.urlsafe_b64encode(key).decode()}\n")
    except FileExistsError:
        raise BadKey(f"{file} is there already; a key is never written over") from None
    except OSError as error:
        raise BadKey(f"{file} cannot be written: {error.strerror}") from None


def _read(file: Path, kind: str) -> bytes:
    try:
        written = file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise BadKey(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        written = ""
    found, _, encoded = written.partition(":")
    try:
        key = base64.b64decode(encoded, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if found != kind or len(key) != KEY_BYTES:
        raise BadKey(f"{file} holds no {kind}; make one by `lockbox operate {COMMANDS[kind]}`")
    return key


def _id_of(key: bytes) -> bytes:
    return hashlib.sha256(b"lockbox key id" + key).digest()[:ID_BYTES]


def _canonical(parts: Sequence[Part]) -> bytes:
    return json.dumps([_plain(part) for part in parts], separators=(",", ":")).encode()


def _plain(part: Part) -> object:
    """Convert a value that a MAC covers, for JSON.

    Equal values, such as bytes and a memoryview of them, give equal results; different values give different results.
    """
    if part is None or isinstance(part, bool | int):
        return part
    if isinstance(part, bytes | memoryview):
        return {"bytes": bytes(part).hex()}
    if isinstance(part, datetime):
        return {"at": part.astimezone(UTC).isoformat(timespec="microseconds")}
    if isinstance(part, list | tuple):
        return [_plain(one) for one in part]
    return str(part)


_DEVELOPMENT = b"insecure development root key 32"
