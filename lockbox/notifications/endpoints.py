"""Webhook endpoints; the secret is shown once and stored encrypted."""

import base64
import math
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lockbox.database import UnitOfWork, now
from lockbox.errors import TooMany
from lockbox.notifications.models import Endpoint, Format
from lockbox.sql import new_id

SECRET_BYTES = 32
PRIVATE_KEY = "whsk_"
PUBLIC_KEY = "whpk_"
OVERLAP = timedelta(hours=24)
BETWEEN = " "
MINUTE = timedelta(minutes=1)
MOST_BY_HAND = 10


class SecretVault:
    """Encrypts secrets with its first key, and decrypts with any key."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, secret: str) -> bytes:
        return self._fernet.encrypt(secret.encode())

    def open(self, sealed: bytes) -> str:
        return self._fernet.decrypt(sealed).decode()


def new_secret() -> str:
    """256 bits, in the form of Standard Webhooks."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def new_key() -> tuple[str, str]:
    """Return the private and the public half of an Ed25519 key, in the form of Standard Webhooks."""
    key = Ed25519PrivateKey.generate()
    private, public = key.private_bytes_raw(), key.public_key().public_bytes_raw()
    return PRIVATE_KEY + base64.b64encode(private).decode(), PUBLIC_KEY + base64.b64encode(public).decode()


@dataclass(frozen=True)
class EndpointSigningKeys:
    """The HMAC secret to show once, the Ed25519 public key, and the encrypted secret and private key to store."""

    secret: str
    public_key: str
    sealed: bytes


def add(
    session: UnitOfWork, vault: SecretVault, url: str, *, tenant_id: UUID | None, event_types: Iterable[str] = ()
) -> str:
    """Add an endpoint of a tenant, or of the vendor if `tenant_id` is None; return its signing secret.

    No types means all types.
    """
    signing = new_signing(vault)
    session.orm.add(made(signing, url, tenant_id=tenant_id, event_types=event_types, at=now(session)))
    session.orm.flush()
    return signing.secret


def new_signing(vault: SecretVault) -> EndpointSigningKeys:
    secret = new_secret()
    private, public = new_key()
    return EndpointSigningKeys(secret, public, vault.seal(secret + BETWEEN + private))


def made(
    signing: EndpointSigningKeys,
    url: str,
    *,
    tenant_id: UUID | None,
    at: datetime,
    event_types: Iterable[str] = (),
    description: str = "",
    format_: Format = Format.JSON,
    with_justification: bool = False,
) -> Endpoint:
    return Endpoint(
        id=new_id(),
        tenant_id=tenant_id,
        url=url,
        secret=signing.sealed,
        public_key=signing.public_key,
        event_types=sorted(set(event_types)),
        description=description,
        format=format_,
        with_justification=with_justification,
        created_at=at,
    )


def rotate(endpoint: Endpoint, signing: EndpointSigningKeys, at: datetime, overlap: timedelta = OVERLAP) -> None:
    """The old keys sign too until the overlap is over."""
    endpoint.old_secret, endpoint.old_secret_until = (endpoint.secret, at + overlap) if overlap else (None, None)
    endpoint.secret, endpoint.public_key = signing.sealed, signing.public_key


def count_call(endpoint: Endpoint, at: datetime) -> None:
    lately = [before for before in endpoint.called_by_hand if before > at - MINUTE]
    if len(lately) >= MOST_BY_HAND:
        raise TooMany(
            f"A webhook is called by hand at most {MOST_BY_HAND} times a minute; wait.",
            retry_after=math.ceil((lately[-MOST_BY_HAND] + MINUTE - at).total_seconds()),
        )
    endpoint.called_by_hand = [*lately, at]


def signers(vault: SecretVault, secret: bytes, old_secret: bytes | None) -> tuple[str, ...]:
    newest = vault.open(secret).split(BETWEEN)
    return (*newest, *(vault.open(old_secret).split(BETWEEN) if old_secret else ()))
