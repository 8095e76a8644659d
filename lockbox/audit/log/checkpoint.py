"""Checkpoints: a log's size and root as a C2SP signed note; pure."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lockbox.audit.canonical import decoded as exact

ED25519 = b"\x01"
ID_BYTES = 4
KEY_BYTES = 32
HASH_BYTES = 32
LONGEST_NOTE = 4096
DASH = "\N{EM DASH} "
TIME = "time "
MOST_DIGITS = 19


class BadNote(Exception):  # noqa: N818 - it names what was found
    """The text is not a checkpoint, or no trusted key has signed it."""


class UnknownKey(BadNote):
    pass


class WrongSignature(BadNote):
    """The note has a signature under a trusted key's name, and that signature is invalid."""


@dataclass(frozen=True)
class Checkpoint:
    """`at` is UTC, in the form that events use."""

    origin: str
    size: int
    root: bytes
    at: str

    @property
    def text(self) -> str:
        """The signed text with its last line break; the time is an extension line."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n{TIME}{self.at}\n"


@dataclass(frozen=True)
class VerifierKey:
    """A public key as in C2SP's signed notes: a name, and the 32 bytes of an Ed25519 key."""

    name: str
    public: bytes

    @property
    def id(self) -> bytes:
        """The four bytes that identify the key in a signature."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.public).digest()[:ID_BYTES]

    @property
    def text(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(ED25519 + self.public).decode()}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the public key in hex, in groups of eight digits."""
        digest = hashlib.sha256(self.public).hexdigest()
        return " ".join(digest[start : start + 8] for start in range(0, len(digest), 8))

    @classmethod
    def read(cls, text: str) -> "VerifierKey":
        """Parse a text such as `lockbox.example+1a2b3c4d+AbCd…`; raises BadNote."""
        name, _, rest = text.strip().partition("+")
        said, _, encoded = rest.partition("+")
        try:
            raw = exact(encoded)
        except ValueError:
            raw = b""
        key = cls(name, raw[1:])
        if not is_name(name) or raw[:1] != ED25519 or len(raw) != 1 + KEY_BYTES or key.id.hex() != said:
            raise BadNote("this is no key of the form name+id+base64 for Ed25519")
        return key


def is_name(name: str) -> bool:
    """Return whether a text can name a key or a log: not empty, no white space, no plus sign."""
    return bool(name) and name.isprintable() and "+" not in name and not any(mark.isspace() for mark in name)


def sign(checkpoint: Checkpoint, name: str, keys: Sequence[Ed25519PrivateKey]) -> str:
    said = checkpoint.text
    lines = []
    for key in keys:
        public = VerifierKey(name, key.public_key().public_bytes_raw())
        signature = base64.b64encode(public.id + key.sign(said.encode())).decode()
        lines.append(f"{DASH}{name} {signature}\n")
    return f"{said}\n{''.join(lines)}"


def named(origin: str) -> tuple[str, int]:
    """Return a log's name without its generation, and the generation, counted from 1."""
    base, _, last = origin.rpartition("/")
    is_later = "/audit/" in base and last.isascii() and last.isdigit() and len(last) <= MOST_DIGITS
    return (base, int(last)) if is_later else (origin, 1)


def saved(text: str) -> str:
    """Restore the line ends and outer empty lines of a note that a mail program or an editor has changed."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").strip("\n") + "\n"


def read(note: str) -> Checkpoint:
    """Parse a signed note without verifying its signatures; raises BadNote."""
    said, _ = _parted(note)
    lines = said.split("\n")
    try:
        origin, size, root, *further = lines[:-1]
        decoded = exact(root)
    except ValueError:
        raise BadNote("this is no checkpoint: origin, size and root stand on three lines") from None
    number = size.isascii() and size.isdigit() and len(size) <= MOST_DIGITS and (size == "0" or size[0] != "0")
    if not number or len(decoded) != HASH_BYTES or not origin:
        raise BadNote("this is no checkpoint: its size or its root is malformed")
    at = next((line.removeprefix(TIME) for line in further if line.startswith(TIME)), "")
    return Checkpoint(origin, int(size), decoded, at)


def verify(note: str, keys: Mapping[bytes, VerifierKey]) -> tuple[Checkpoint, VerifierKey]:
    """Return the checkpoint and the trusted key that signed it; `keys` maps four-byte ids to keys.

    Raises BadNote, and UnknownKey if no trusted key has signed the note.
    """
    checkpoint = read(note)
    said, signatures = _parted(note)
    signers = []
    for name, id_, signature in signatures:
        key = keys.get(id_)
        if key is None or key.name != name:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature, said.encode())
        except InvalidSignature:
            raise WrongSignature(f"the signature by {name}+{id_.hex()} is wrong") from None
        signers.append(key)
    if not signers:
        names = ", ".join(f"{name}+{id_.hex()}" for name, id_, _ in signatures)
        raise UnknownKey(f"signed by {names}, which you do not trust")
    return checkpoint, signers[0]


def _parted(note: str) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    if len(note) > LONGEST_NOTE:
        raise BadNote("this is too long for a checkpoint")
    text, separator, rest = note.rpartition("\n\n")
    if not separator or not rest.endswith("\n"):
        raise BadNote("this is no signed note: a blank line stands between text and signatures")
    signatures = []
    for line in rest[:-1].split("\n"):
        name, _, encoded = line.removeprefix(DASH).partition(" ")
        try:
            raw = exact(encoded)
        except ValueError:
            raw = b""
        if not line.startswith(DASH) or not is_name(name) or len(raw) <= ID_BYTES:
            raise BadNote("this is no signed note: a line of its signatures is not one")
        signatures.append((name, raw[:ID_BYTES], raw[ID_BYTES:]))
    return f"{text}\n", signatures
