"""Decide whether a call comes directly from this machine, without a proxy."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import Request

from config.settings import LOOPBACK
from lockbox.errors import NotYours

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")

PLAYGROUND_CLOSED = (
    "The playground works only on the machine that runs it. Open the address that `make run` printed there."
)


async def require_loopback(request: Request) -> None:
    """Refuse a call from another machine, or under a name that does not belong to this machine.

    A foreign name that resolves to this machine (DNS rebinding) is refused. A call through a proxy is refused even if
    the proxy adds no headers, because the proxy forwards the foreign name.
    """
    if not is_local(request):
        raise NotYours(PLAYGROUND_CLOSED)


def is_local(request: Request) -> bool:
    return _is_from_here(request) and _name_of(request) in LOOPBACK


def _is_from_here(request: Request) -> bool:
    if request.client is None or any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ip_address(request.client.host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _name_of(request: Request) -> str | None:
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return None
