"""Secrets of webhook endpoints, encrypted where they are stored."""

import base64
import secrets
from collections.abc import Sequence

from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SECRET_BYTES = 32
PRIVATE_KEY = "whsk_"
PUBLIC_KEY = "whpk_"


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


def new_key() -> tuple[str, str]:
    """Return a fresh Ed25519 key in the form of Standard Webhooks: the private half and the public one."""
    key = Ed25519PrivateKey.generate()
    private, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    return PRIVATE_KEY + base64.b64encode(private).decode(), PUBLIC_KEY + base64.b64encode(public).decode()
