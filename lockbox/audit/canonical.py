"""The canonical JSON (RFC 8785) of events and signed approvals, and salted commitments; pure."""

import base64
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from uuid import UUID

LARGEST_INTEGER = 2**53 - 1
SALT_BYTES = 16
INSTANTS_KEPT = 1024
SIGNED_FORMAT, SIGNED_FORMAT_2 = "lockbox signed approval 1", "lockbox signed approval 2"

ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode
AS_THEY_ARE = frozenset({str, bool, type(None)})

Plain = str | int | bool | UUID | datetime | list[str] | None
Value = Plain | Mapping[str, Plain]
NOTHING_ADDED: Mapping[str, Value] = MappingProxyType({})


@lru_cache(INSTANTS_KEPT)
def instant(moment: datetime) -> str:
    """Format a moment as UTC text, always with six decimal places of the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def canonical(fields: Mapping[str, Value]) -> bytes:
    """Return the canonical bytes of one flat object.

    Allowed values are text, whole numbers up to 2^53 - 1 (no floats), booleans, null, lists of text, and one level of
    objects of these; other values raise ValueError or TypeError. Names must be ASCII, so that the standard library's
    encoder writes RFC 8785's form.
    """
    plain = {name: value if type(value) in AS_THEY_ARE else _plain(value) for name, value in fields.items()}
    if not "".join(plain).isascii():
        raise ValueError("names in an event are ASCII")
    return ENCODE(plain).encode()


def _plain(value: Value) -> object:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        if abs(value) > LARGEST_INTEGER:
            raise ValueError("a number in an event is at most 2^53 - 1")
        return value
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, Mapping):
        return {name: one if type(one) in AS_THEY_ARE else _flat(one) for name, one in value.items()}
    if isinstance(value, list):
        return value
    raise TypeError(f"an event holds no {type(value).__name__}")


def _flat(value: Value) -> object:
    if isinstance(value, Mapping):
        raise TypeError("an object within an event holds no further one")
    return _plain(value)


def signed_text(
    request_id: Value,
    tenant_id: Value,
    opened_at: Value,
    until: Value,
    *,
    by: Iterable[str],
    statement: str,
    opens_at: Value = None,
    added: Mapping[str, Value] = NOTHING_ADDED,
) -> bytes:
    """Return the bytes that an approval's signature covers: the window, its approvers, and the statement's hash.

    The opening event holds all these values, so that the signature stays verifiable after personal values are erased.
    With members in `added`, the format is 2.
    """
    return canonical(
        {
            "format": SIGNED_FORMAT_2 if added else SIGNED_FORMAT,
            "request_id": request_id,
            "tenant_id": tenant_id,
            "opened_at": opened_at,
            "until": until,
            "by": sorted(by),
            "statement": statement,
            **({"opens_at": opens_at} if opens_at else {}),
            **added,
        }
    )


def decoded(text: str) -> bytes:
    """Decode base64 (RFC 4648 section 4); raises ValueError if the encoding is not canonical."""
    found = base64.b64decode(text, validate=True)
    if base64.b64encode(found).decode() != text:
        raise ValueError("the bits that pad a text in base64 are zero")
    return found


def new_salt() -> bytes:
    """Return 128 random bits; without this salt, a commitment does not reveal its value."""
    return secrets.token_bytes(SALT_BYTES)


def commitment(salt: bytes, value: str) -> str:
    """Return hex(SHA-256(salt ‖ value)), which the event holds in place of an erasable value."""
    return hashlib.sha256(salt + value.encode()).hexdigest()
