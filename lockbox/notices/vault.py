"""Secrets of webhook endpoints: encrypted where they are stored, with keys that can be rotated."""

import base64
import secrets
from collections.abc import Sequence

from cryptography.fernet import Fernet, MultiFernet

SECRET_BYTES = 32


class Vault:
    """Encrypts with the first key and reads with any of them."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, secret: str) -> bytes:
        """Return the secret as it may be stored."""
        return self._fernet.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        """Return the secret.

        Raises:
            cryptography.fernet.InvalidToken: none of the keys fits.
        """
        return self._fernet.decrypt(sealed).decode()


def new_secret() -> str:
    """Return a fresh HMAC secret in the form of Standard Webhooks, 256 bits."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"
