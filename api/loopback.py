"""Decide whether a call comes from this machine and not through a proxy."""

from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import Request

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")


def is_from_here(request: Request) -> bool:
    """Return whether the peer is on this machine and is no proxy."""
    if request.client is None or any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ip_address(request.client.host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def name_of(request: Request) -> str | None:
    """Return the host that a call names, without its port; None if there is none."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname
    except ValueError:
        return None
