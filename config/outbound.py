"""The operator's choice of a proxy, and of private networks that may be called."""

from base64 import b64encode
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Self
from urllib.parse import unquote, urlsplit

Network = IPv4Network | IPv6Network
MOST_PORT = 65535
PRIVATE_USE: tuple[Network, ...] = (
    IPv4Network("10.0.0.0/8"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("100.64.0.0/10"),
    IPv6Network("fc00::/7"),
)
# At these addresses, clouds give a machine's own credentials to any caller. Other addresses of this kind are
# link-local.
NEVER = frozenset({IPv6Address("fd00:ec2::254"), IPv4Address("100.100.100.200")})


@dataclass(frozen=True)
class OutboundProxy:
    """A CONNECT proxy; `credentials` is the value of `Proxy-Authorization`."""

    host: str
    port: int
    is_tls: bool = False
    credentials: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str) -> Self:
        """Raises a ValueError that does not quote the URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in {"http", "https"} or not parts.hostname or not port or port > MOST_PORT:
            raise ValueError("use a URL such as http://proxy.vendor.example:3128, with the port")
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ValueError("leave out what follows the port: a proxy has no path")
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        credentials = f"Basic {b64encode(pair.encode()).decode()}" if parts.username else None
        return cls(parts.hostname, port, parts.scheme == "https", credentials)


@dataclass(frozen=True)
class OutboundRoute:
    """Private networks that may be called, and the proxy for public addresses; neither by default."""

    private: tuple[Network, ...] = ()
    proxy: OutboundProxy | None = None

    @property
    def to_tenants(self) -> Self:
        return replace(self, private=())

    def leads_inside(self, address: IPv4Address | IPv6Address) -> bool:
        return address not in NEVER and any(address in network for network in self.private)


def check_private(networks: tuple[Network, ...]) -> tuple[Network, ...]:
    """Refuse, with a ValueError, networks that are not for private use: loopback, link-local and public networks."""
    for network in networks:
        kin = (block for block in PRIVATE_USE if block.version == network.version)
        if not any(network.subnet_of(block) for block in kin):  # type: ignore[arg-type]  # both have the same IP version
            blocks = ", ".join(map(str, PRIVATE_USE))
            raise ValueError(f"{network} is not of private use: name networks within {blocks}")
    return networks
