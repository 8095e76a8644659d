"""Whether a call comes from this very machine: by the other end of its connection, which has to speak for itself."""

from ipaddress import ip_address

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
