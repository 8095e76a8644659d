"""A tunnel through a proxy to a checked address: the proxy learns no host name, and sees only TLS."""

import re
import ssl
from collections.abc import Iterable

import httpcore
import httpx

from config.outbound import OutboundProxy

MOST_HEAD = 8192
OK = 200
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")


class TunnelFailed(httpcore.ConnectError):
    """The proxy was not reached, or did not open a tunnel; the message quotes nothing that the proxy sent."""


class TunnelTransport(httpx.AsyncHTTPTransport):
    """httpx's transport over tunnels. TLS verifies the name of the host, as without a proxy."""

    def __init__(self, proxy: OutboundProxy, tls: ssl.SSLContext) -> None:
        super().__init__(verify=tls, trust_env=False)
        # httpx's own support of proxies would verify the certificate for the address, not for the name.
        self._pool = httpcore.AsyncConnectionPool(ssl_context=tls, network_backend=_Tunnels(proxy))


class _Tunnels(httpcore.AsyncNetworkBackend):
    def __init__(self, proxy: OutboundProxy) -> None:
        self._proxy = proxy
        self._direct = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as httpcore calls it
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        proxy = self._proxy
        try:
            stream = await self._direct.connect_tcp(proxy.host, proxy.port, timeout, local_address, socket_options)
        except (httpcore.ConnectError, httpcore.ConnectTimeout):
            raise TunnelFailed("the outbound proxy cannot be reached") from None
        try:
            if proxy.is_tls:
                stream = await stream.start_tls(ssl.create_default_context(), proxy.host, timeout)
            await stream.write(self._request(host, port), timeout)
            status = await _answer(stream, timeout)
        except TunnelFailed:
            await stream.aclose()
            raise
        except (httpcore.NetworkError, httpcore.TimeoutException):
            await stream.aclose()
            raise TunnelFailed("the outbound proxy did not answer") from None
        except BaseException:
            await stream.aclose()
            raise
        if status != OK:
            await stream.aclose()
            raise TunnelFailed(f"the outbound proxy answered {status}")
        return stream

    def _request(self, host: str, port: int) -> bytes:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if self._proxy.credentials:
            lines.append(f"Proxy-Authorization: {self._proxy.credentials}")
        return "\r\n".join([*lines, "", ""]).encode()


async def _answer(stream: httpcore.AsyncNetworkStream, seconds: float | None) -> int:
    """Return the status of the proxy's answer.

    Refuse bytes after a successful answer's head: nothing was sent to the target yet, so they cannot come from it.
    """
    said = b""
    while b"\r\n\r\n" not in said:
        part = await stream.read(MOST_HEAD, seconds)
        said += part
        if not part or len(said) > MOST_HEAD:
            raise TunnelFailed("the outbound proxy did not answer as one")
    status = STATUS.match(said)
    if not status or (int(status[1]) == OK and not said.endswith(b"\r\n\r\n")):
        raise TunnelFailed("the outbound proxy did not answer as one")
    return int(status[1])
