"""SCRAM-SHA-256 verifiers, which Postgres stores in place of passwords. Pure."""

import base64
import hashlib
import hmac
import re
import secrets

ITERATIONS = 4096
SALT_BYTES = 16
PASSWORD_BYTES = 32
PATTERN = r"^SCRAM-SHA-256\$[1-9][0-9]{3,6}:[A-Za-z0-9+/]{22}==\$[A-Za-z0-9+/]{43}=:[A-Za-z0-9+/]{43}=$"
"""Postgres' format, with a salt of 16 bytes: iterations, salt, StoredKey and ServerKey (RFC 5803)."""


def new_password() -> str:
    return secrets.token_urlsafe(PASSWORD_BYTES)


def verifier_of(password: str) -> str:
    """Return a verifier of an ASCII password, with a fresh salt."""
    salt = secrets.token_bytes(SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_, stored_, server_ = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return f"SCRAM-SHA-256${ITERATIONS}:{salt_}${stored_}:{server_}"


def is_verifier(text: str) -> bool:
    """Return whether a text is a verifier. Postgres would treat any other text as a password."""
    return re.fullmatch(PATTERN, text) is not None and "\n" not in text
