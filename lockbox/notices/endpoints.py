"""Webhook endpoints: adding one; its secret is shown once and stored encrypted."""

from collections.abc import Iterable
from uuid import UUID

from sqlmodel import Session

from lockbox.database import now
from lockbox.ids import new_id
from lockbox.notices.models import Endpoint
from lockbox.notices.vault import Vault, new_secret


def add(session: Session, vault: Vault, url: str, *, tenant_id: UUID | None, event_types: Iterable[str] = ()) -> str:
    """Add an endpoint of a tenant, or of the vendor for None, and return its signing secret.

    Args:
        session: the open transaction.
        vault: encrypts the secret.
        url: where calls go.
        tenant_id: whose requests it hears of.
        event_types: such as `request.active`; none means all.
    """
    secret = new_secret()
    session.add(
        Endpoint(
            id=new_id(),
            tenant_id=tenant_id,
            url=url,
            secret=vault.seal(secret),
            event_types=sorted(event_types),
            created_at=now(session),
        )
    )
    session.flush()
    return secret
