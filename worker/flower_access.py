"""Access to Flower: wrong passwords are answered slowly; metrics need the password too, except on this machine."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from flower.views import BaseHandler
from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, StaticFileHandler, url

from lockbox.identity.attempt_limits import network

WRONG_SECONDS = 1.0
MOST_WAITING = 20
WITHOUT_PASSWORD = frozenset({"/metrics", "/healthcheck"})
FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Via")
UNAUTHORIZED, TOO_MANY = 401, 429


class AttemptGate:
    """Delays the answer to a wrong password by a second, and checks an address's attempts one at a time.

    An address can try one password a second. An IPv6 network of 64 bits counts as one address.
    """

    def __init__(self, seconds: float = WRONG_SECONDS, most: int = MOST_WAITING) -> None:
        self._seconds = seconds
        self._most = most
        self._locks: dict[str, asyncio.Lock] = {}
        self._waiting = Counter[str]()

    async def judge(self, address: str, *, is_right: bool) -> None:
        address = network(address)
        if self._waiting[address] >= self._most:
            raise HTTPError(TOO_MANY, "Too many attempts; try again in a minute.")
        self._waiting[address] += 1
        try:
            async with self._locks.setdefault(address, asyncio.Lock()):
                if not is_right:
                    await asyncio.sleep(self._seconds)
                    raise HTTPError(UNAUTHORIZED)
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]
                del self._locks[address]


ATTEMPTS = AttemptGate()


def is_from_here(request: HTTPServerRequest) -> bool:
    """Whether the request comes from this machine itself, and not through a proxy on it."""
    if any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ip_address(request.remote_ip or "").is_loopback
    except ValueError:
        return False


class GuardedHandler(BaseHandler):  # type: ignore[misc]
    async def prepare(self) -> None:
        if self.request.path in WITHOUT_PASSWORD and is_from_here(self.request):
            return
        if "Authorization" in self.request.headers or self.request.path in WITHOUT_PASSWORD:
            await self._judge()
        begun = super().prepare()
        if begun is not None:
            await begun

    async def _judge(self) -> None:
        try:
            self.get_current_user()
        except HTTPError:
            if "Authorization" not in self.request.headers:
                raise
            await ATTEMPTS.judge(self.request.remote_ip or "", is_right=False)
        else:
            await ATTEMPTS.judge(self.request.remote_ip or "", is_right=True)


def guarded(handlers: Sequence[Any]) -> list[Any]:
    """Return Flower's routes with a guard before each, except before style sheets and scripts."""
    return [_guarded(handler) for handler in handlers]


def _guarded(handler: Any) -> Any:  # noqa: ANN401 - Tornado accepts tuples and its own objects
    spec = handler if isinstance(handler, url) else url(*handler)
    if not issubclass(spec.target, StaticFileHandler):
        spec.target = spec.handler_class = type(spec.target.__name__, (GuardedHandler, spec.target), {})
    return spec
