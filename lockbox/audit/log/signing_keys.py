"""Ed25519 signing keys in PEM files that only their owner can read."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from lockbox.audit.log.checkpoint import VerifierKey

OWNER_ALONE = 0o600


class BadKey(Exception):  # noqa: N818 - it names what was found
    """A signing key file is unusable; the message names the file and states what to do."""


def read(files: Sequence[Path]) -> list[Ed25519PrivateKey]:
    return [_read(file) for file in files]


def trusted(texts: Iterable[str]) -> dict[bytes, VerifierKey]:
    """Parse public keys of the form `name+id+base64`; raises BadNote."""
    known = [VerifierKey.read(text) for text in texts]
    return {key.id: key for key in known}


def make(file: Path) -> Ed25519PrivateKey:
    """Raises BadKey if the file exists, or cannot be written."""
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
