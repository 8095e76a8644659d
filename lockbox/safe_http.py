"""HTTP calls to URLs that other people choose: only https and public addresses, with limits on size and time."""

import asyncio
import functools
import socket
import ssl
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeVar
from urllib.parse import urlencode

import httpx

from config.outbound import OutboundRoute
from lockbox.proxy_tunnel import TunnelFailed, TunnelTransport

MOST_BYTES = 256 * 1024
SECONDS = 5.0
LOOK_UP_SECONDS = 3.0
MOST_ADDRESSES = 4
MOST_LOOK_UPS = 16
HTTPS = 443
FIRST_FREE_PORT = 1024
LAST_PORT = 65535
OK = 200
SIGNING_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")

# Python 3.11 counts these as global: 6to4 and its relays, protocol assignments and documentation.
NOT_REALLY_GLOBAL = (
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv6Network("2002::/16"),
    IPv6Network("3fff::/20"),
)
# IANA allocates addresses only in this block. Mapped, translated (NAT64) and compatible IPv4 addresses are outside
# it.
GLOBAL_UNICAST = IPv6Network("2000::/3")

Address = IPv4Address | IPv6Address

LOOK_UPS = threading.BoundedSemaphore(MOST_LOOK_UPS)
ASKING = threading.Lock()
UNDER_WAY: dict[str, "Future[Sequence[Address]]"] = {}
T = TypeVar("T")
NO_WAY_ASIDE = OutboundRoute()


class FetchFailure(StrEnum):
    """`busy` is a problem of ours, not of the other side."""

    FORM = "form"
    NAME = "name"
    BUSY = "busy"
    NOT_PUBLIC = "not_public"
    CONNECTION = "connection"
    CERTIFICATE = "certificate"
    TIME = "time"
    ANSWER = "answer"


class FetchFailed(Exception):  # noqa: N818 - it is an outcome that callers plan for
    """`reason` quotes nothing that the other side sent; `status` is its HTTP status."""

    def __init__(
        self, reason: str, *, status: int | None = None, trouble: FetchFailure = FetchFailure.ANSWER
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.trouble = trouble


@dataclass(frozen=True)
class FetchResponse:
    """The first bytes of the body, Retry-After as sent, and the headers that sign the body."""

    status: int
    body: bytes
    retry_after: str | None = None
    signed: Mapping[str, str] = field(default_factory=dict)


def fetch(
    url: str,
    *,
    most_bytes: int = MOST_BYTES,
    seconds: float = SECONDS,
    allow_loopback: bool = False,
    form: Mapping[str, str] | None = None,
    authorization: str | None = None,
    tls: ssl.SSLContext | None = None,
    route: OutboundRoute = NO_WAY_ASIDE,
) -> bytes:
    """Return the body of a JSON answer with status 200, by GET or, with a form, by POST.

    The host is resolved once. The call goes to a checked address, with the host's own name in TLS and HTTP. It
    follows no redirect, uses no proxy except the route's, and accepts no content encoding. The URL is https, on port
    443 or a port from 1024 on. `allow_loopback` permits this machine's own addresses, on any port, and http to them.
    `seconds` limits the time from the name look-up to the last byte. `tls` replaces the system's trusted authorities.

    Raises:
        FetchFailed: the address may not be called, or the answer is missing, late, too long or not JSON.
    """
    target = _target(url, allow_loopback=allow_loopback)
    headers = {} if authorization is None else {"authorization": authorization}
    content = None
    if form is not None:
        headers["content-type"] = "application/x-www-form-urlencoded"
        content = urlencode(form).encode()
    request = _request(target, headers, content)
    read = functools.partial(_read, most_bytes=most_bytes)
    return asyncio.run(_guarded(request, read, seconds, tls, route, allow=allow_loopback))


async def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    most_bytes: int,
    seconds: float = SECONDS,
    allow_loopback: bool = False,
    tls: ssl.SSLContext | None = None,
    route: OutboundRoute = NO_WAY_ASIDE,
) -> FetchResponse:
    """Post JSON and return the answer, whatever its status; checks and arguments are as for `fetch`.

    Of the body, only the first `most_bytes` are read.

    Raises:
        FetchFailed: the address may not be called, or no answer came in time.
    """
    target = _target(url, allow_loopback=allow_loopback)
    request = _request(target, {**headers, "content-type": "application/json"}, body)
    read = functools.partial(_begin, most_bytes=most_bytes)
    return await _guarded(request, read, seconds, tls, route, allow=allow_loopback)


def check(url: str, *, allow_loopback: bool = False, route: OutboundRoute = NO_WAY_ASIDE) -> None:
    """Check a URL before it is saved, without resolving its name.

    Raises:
        FetchFailed: the URL's form, port or IP address is never allowed.
    """
    target = _target(url, allow_loopback=allow_loopback)
    host = target.raw_host.decode("ascii").rstrip(".").lower()
    try:
        address = ip_address(host)
    except ValueError:
        if not allow_loopback and (host == "localhost" or host.endswith(".localhost")):
            raise FetchFailed("the address is not a public one", trouble=FetchFailure.NOT_PUBLIC) from None
        return
    _check(address, route, plain=target.scheme == "http", allow_loopback=allow_loopback)


async def _guarded(
    request: httpx.Request,
    read: Callable[[httpx.Response], Awaitable[T]],
    seconds: float,
    tls: ssl.SSLContext | None,
    route: OutboundRoute,
    *,
    allow: bool,
) -> T:
    until = time.monotonic() + seconds
    addresses = await _look_up(request.url.raw_host.decode("ascii"), min(seconds, LOOK_UP_SECONDS))
    for address in addresses:
        _check(address, route, plain=request.url.scheme == "http", allow_loopback=allow)
    try:
        async with asyncio.timeout(max(0.0, until - time.monotonic())):
            return await _call(
                request, addresses[:MOST_ADDRESSES], tls or _system_trust(), read, seconds, route=route
            )
    except (TimeoutError, httpx.TimeoutException):
        raise FetchFailed("it took too long", trouble=FetchFailure.TIME) from None
    except (httpx.HTTPError, OSError, ValueError) as error:
        # The cause is not chained, because its text may quote the other side.
        raise FetchFailed(f"the call failed: {type(error).__name__}", trouble=FetchFailure.CONNECTION) from None


def _target(url: str, *, allow_loopback: bool) -> httpx.URL:
    try:
        target = httpx.URL(url)
        # httpx decodes a host only when it is read, and only if it begins with `xn--`. So each such label is read
        # here, because it may be invalid, as `xn--` alone is.
        host = target.host
        for label in host.split("."):
            _ = httpx.URL(scheme="https", host=label).host if label.startswith("xn--") else None
    except (httpx.InvalidURL, UnicodeError):
        raise FetchFailed("the address is not a URL", trouble=FetchFailure.FORM) from None
    if target.scheme != "https" and not (target.scheme == "http" and allow_loopback):
        raise FetchFailed("the address is not https", trouble=FetchFailure.FORM)
    if target.userinfo or not host:
        raise FetchFailed("the address names a user, or no host", trouble=FetchFailure.FORM)
    port = HTTPS if target.port is None else target.port
    if not 1 <= port <= LAST_PORT:
        raise FetchFailed("the address names a port that there is not: use 1 to 65535", trouble=FetchFailure.FORM)
    if not allow_loopback and port != HTTPS and port < FIRST_FREE_PORT:
        raise FetchFailed("the address names a port that is not called", trouble=FetchFailure.FORM)
    return target


async def _look_up(host: str, seconds: float) -> Sequence[Address]:
    try:
        async with asyncio.timeout(seconds):
            addresses = await asyncio.wrap_future(_asked(host))
    except TimeoutError:
        raise FetchFailed("the name could not be looked up in time", trouble=FetchFailure.NAME) from None
    except (OSError, ValueError):
        raise FetchFailed("the name could not be looked up", trouble=FetchFailure.NAME) from None
    if not addresses:
        raise FetchFailed("the name has no address", trouble=FetchFailure.NAME)
    return addresses


def _asked(host: str) -> "Future[Sequence[Address]]":
    """Resolve a name in a thread, at most one thread for each name: a name that hangs must not use up all threads."""
    with ASKING:
        if host in UNDER_WAY:
            return UNDER_WAY[host]
        if not LOOK_UPS.acquire(blocking=False):
            raise FetchFailed("too many names are being looked up", trouble=FetchFailure.BUSY)
        answer: Future[Sequence[Address]] = Future()
        # Several callers may wait for this answer, so one that gives up must not cancel it for the others.
        answer.set_running_or_notify_cancel()
        try:
            threading.Thread(target=_ask, args=(host, answer), name="look-up", daemon=True).start()
        except RuntimeError:
            LOOK_UPS.release()
            raise FetchFailed("no thread is left to look up the name", trouble=FetchFailure.BUSY) from None
        UNDER_WAY[host] = answer
    return answer


def _ask(host: str, answer: "Future[Sequence[Address]]") -> None:
    addresses: list[Address] = []
    failure: Exception | None = None
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = [ip_address(entry[4][0]) for entry in found]
    except Exception as error:  # noqa: BLE001 - it is raised again where it is awaited
        failure = error
    with ASKING:
        del UNDER_WAY[host]
    LOOK_UPS.release()
    if failure:
        answer.set_exception(failure)
    else:
        answer.set_result(addresses)


def _check(address: Address, route: OutboundRoute, *, plain: bool, allow_loopback: bool) -> None:
    # Later Pythons also count a mapped ::ffff:127.0.0.1 as loopback. It is refused, because no one needs that form.
    is_mapped = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
    if address.is_loopback and allow_loopback and not is_mapped:
        return
    if not plain and route.leads_inside(address):
        return
    if plain or not address.is_global or address.is_multicast or not _is_unicast(address):
        raise FetchFailed("the address is not a public one", trouble=FetchFailure.NOT_PUBLIC)


def _is_unicast(address: Address) -> bool:
    if any(address in network for network in NOT_REALLY_GLOBAL):
        return False
    return isinstance(address, IPv4Address) or address in GLOBAL_UNICAST


def _request(target: httpx.URL, headers: Mapping[str, str], content: bytes | None) -> httpx.Request:
    own = {
        "accept": "application/json",
        "accept-encoding": "identity",
        "connection": "close",
        "user-agent": "Lockbox",
    }
    names = {"sni_hostname": target.raw_host.decode("ascii")}
    method = "GET" if content is None else "POST"
    return httpx.Request(method, target, headers={**headers, **own}, content=content, extensions=names)


async def _call(
    request: httpx.Request,
    addresses: Sequence[Address],
    tls: ssl.SSLContext,
    read: Callable[[httpx.Response], Awaitable[T]],
    seconds: float,
    *,
    route: OutboundRoute,
) -> T:
    """Try the addresses in turn until one accepts the connection; the request is never sent twice."""
    timeout = httpx.Timeout(seconds, connect=seconds / len(addresses))
    target = request.url
    reason, trouble = "no connection could be made", FetchFailure.CONNECTION
    for address in addresses:
        request.url = target.copy_with(host=str(address))
        request.extensions["timeout"] = timeout.as_dict()
        async with _client(address, route, tls, timeout) as http:
            try:
                answer = await http.send(request, stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                if isinstance(error.__cause__, TunnelFailed):
                    reason = str(error.__cause__)
                elif _is_of_certificate(error):
                    reason, trouble = "its certificate was not accepted", FetchFailure.CERTIFICATE
                continue
            try:
                return await read(answer)
            finally:
                await answer.aclose()
    raise FetchFailed(reason, trouble=trouble)


def _client(address: Address, route: OutboundRoute, tls: ssl.SSLContext, timeout: httpx.Timeout) -> httpx.AsyncClient:
    # This machine reaches private networks directly. For a proxy, loopback would be the proxy itself.
    is_near = address.is_loopback or route.leads_inside(address)
    transport = TunnelTransport(route.proxy, tls) if route.proxy and not is_near else None
    return httpx.AsyncClient(
        verify=tls, trust_env=False, follow_redirects=False, timeout=timeout, transport=transport
    )


def _is_of_certificate(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


async def _begin(answer: httpx.Response, *, most_bytes: int) -> FetchResponse:
    """Read at most `most_bytes`, without decompressing them, and do not wait for more."""
    body = bytearray()
    async for part in answer.aiter_raw():
        body += part
        if len(body) >= most_bytes:
            break
    signed = {name: answer.headers[name] for name in SIGNING_HEADERS if name in answer.headers}
    return FetchResponse(answer.status_code, bytes(body[:most_bytes]), answer.headers.get("retry-after"), signed)


async def _read(answer: httpx.Response, *, most_bytes: int) -> bytes:
    if answer.status_code != OK:
        raise FetchFailed(f"it answered {answer.status_code}", status=answer.status_code)
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise FetchFailed("it answered something other than JSON")
    if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise FetchFailed("it answered in an encoding that was not asked for")
    body = bytearray()
    async for part in answer.aiter_raw():
        body += part
        if len(body) > most_bytes:
            raise FetchFailed("its answer is too long")
    return bytes(body)


@functools.cache
def _system_trust() -> ssl.SSLContext:
    return ssl.create_default_context()
