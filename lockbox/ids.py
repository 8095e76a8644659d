"""Identifiers: UUIDs of version 7, which sort by the time they were made (RFC 9562)."""

from uuid import UUID

import uuid_utils
from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Return a fresh UUIDv7."""
    return uuid7()


def new_id_text() -> str:
    """Return a fresh UUIDv7 as text: where thousands are only written down, no object of each is made."""
    return str(uuid_utils.uuid7())
