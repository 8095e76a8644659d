"""Limit how many requests are worked on at once, apart for each kind of request; the others queue, then get a 503."""

import asyncio
import hashlib
import os
import time
from collections import OrderedDict
from collections.abc import Callable

from anyio.to_thread import current_default_thread_limiter
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import browser, budgets
from api.budgets import HEALTH, KNOWN, STRANGERS, VITAL_STRANGERS, Budget, IncomingRequest, budget_of
from api.client_address import client_address
from api.portal.pages import early
from config.settings import Settings
from lockbox.identity.rate_limit import network

ALWAYS = frozenset({"/livez"})
UNAUTHORIZED = 401
MOST_KNOWN, KNOWN_SECONDS = 20_000, 900.0
PER_ADDRESS = 2
SPARE_THREADS = 8
THREADS = budgets.MOST_VITAL + budgets.MOST_COMMON + SPARE_THREADS
"""A request needs one thread at a time: with one for each place, no request that has a place waits for a thread."""

Leave = Callable[[], None]


class Admission:
    """Admits a request when its budget has a place free; the place is free again once its answer begins.

    A place means a thread for each step of the request and a database connection over all of them. Without a limit,
    requests that wait for a connection take every thread, those that have one wait for a thread, and the API stops.
    Access checks and closing moves have places, and connections, that no other request takes. So have requests with a
    credential that this process has not seen to be good, two of an address at once: wrong ones cost others nothing.
    """

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self.app = app
        self._settings = settings
        self._places = {budget: asyncio.Semaphore(budget.most) for budget in KNOWN}
        self._strangers = {budget.vital: _ByAddress(budget.most) for budget in (STRANGERS, VITAL_STRANGERS)}
        self._known = _KnownCredentials()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 503 after it has queued for as long as its budget says."""
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            await self.app(scope, receive, send)
            return
        current_default_thread_limiter().total_tokens = THREADS
        entry = scope[budgets.ENTRY] = IncomingRequest(budget_of(scope["method"], scope["path"]))
        connection = HTTPConnection(scope)
        shown = self._known.digest(_credential(connection, self._settings))
        leave = await self._place(entry.budget, shown, client_address(connection, self._settings.trusted_proxies))
        if leave is None:
            answer = early(scope, 503, "busy", "Too much is asked at once; try again.", {"retry-after": "1"})
            await answer(scope, receive, send)
            return

        async def leaving(message: Message) -> None:
            if message["type"] == "http.response.start":
                leave()
                self._known.note(shown, is_good=entry.is_known, is_bad=message["status"] == UNAUTHORIZED)
            await send(message)

        try:
            await self.app(scope, receive, leaving)
        finally:
            leave()

    async def _place(self, budget: Budget, shown: bytes | None, address: str | None) -> Leave | None:
        """Wait for a place and return how to leave it; None where that took too long."""
        try:
            async with asyncio.timeout(budget.seconds):
                if budget is not HEALTH and shown not in self._known:
                    leave = await self._strangers[budget.vital].enter(address or "")
                    if shown not in self._known:
                        return leave
                    # Another request has shown it to be good meanwhile.
                    leave()
                await self._places[budget].acquire()
                return _once(self._places[budget].release)
        except TimeoutError:
            return None


class _ByAddress:
    """Places of which each address has a few; an IPv6 network of 64 bits counts as one."""

    def __init__(self, most: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._each: dict[str, tuple[asyncio.Semaphore, list[int]]] = {}

    async def enter(self, address: str) -> Leave:
        """Wait for a place, and return how to leave it."""
        address = network(address)
        own, users = self._each.setdefault(address, (asyncio.Semaphore(PER_ADDRESS), [0]))
        users[0] += 1
        taken: list[asyncio.Semaphore] = []

        def leave() -> None:
            for one in taken:
                one.release()
            users[0] -= 1
            if not users[0]:
                del self._each[address]

        try:
            for one in (own, self._all):
                await one.acquire()
                taken.append(one)
        except BaseException:
            leave()
            raise
        return _once(leave)


class _KnownCredentials:
    """Digests, under a key of this process, of the credentials that were good within the last quarter of an hour."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __contains__(self, shown: bytes | None) -> bool:
        return shown is not None and self._until.get(shown, 0.0) > time.monotonic()

    def digest(self, credential: str | None) -> bytes | None:
        """Return what a credential is known by; None for none."""
        if credential is None:
            return None
        return hashlib.blake2b(credential.encode(), key=self._key, digest_size=16).digest()

    def note(self, shown: bytes | None, *, is_good: bool, is_bad: bool) -> None:
        """Remember a good credential, and forget one that is good no more."""
        if shown is None:
            return
        if is_good:
            self._until[shown] = time.monotonic() + KNOWN_SECONDS
            self._until.move_to_end(shown)
            if len(self._until) > MOST_KNOWN:
                self._until.popitem(last=False)
        elif is_bad:
            self._until.pop(shown, None)


def _credential(connection: HTTPConnection, settings: Settings) -> str | None:
    return connection.headers.get("authorization") or browser.session_secret(connection, settings)


def _once(leave: Leave) -> Leave:
    """Return the same, which does nothing from the second call on."""
    left: list[Leave] = [leave]
    return lambda: left.pop()() if left else None
