"""Whether a call comes from this very machine: by the other end of its connection, which has to speak for itself."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import Request

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")


def is_from_here(request: Request) -> bool:
    """Whether the other end of the connection is on this machine, and speaks for itself: a proxy here does not."""
    if request.client is None or any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ip_address(request.client.host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def name_of(request: Request) -> str | None:
    """Return the host that a call names, without its port; None where it is none."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return None
