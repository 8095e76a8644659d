"""The network address of a client, behind proxies that we trust or without any."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address

from starlette.requests import HTTPConnection

Networks = Sequence[IPv4Network | IPv6Network]


def client_address(connection: HTTPConnection, trusted: Networks) -> str | None:
    """Return where a request came from; only trusted proxies are believed when they name another address."""
    found = connection.client.host if connection.client else None
    lines = connection.headers.getlist("x-forwarded-for") if trusted else []
    hops = [hop.strip() for line in lines for hop in line.split(",")]
    while found and trusted and hops:
        try:
            if not any(ip_address(found) in network for network in trusted):
                break
            found = str(ip_address(hops.pop()))
        except ValueError:
            break
    return found.partition("%")[0] if found else None
