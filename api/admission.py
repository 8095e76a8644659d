"""How many requests are worked on at once: the others wait in line, and are turned away when that takes too long."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import problem

MOST_AT_ONCE = 20
LONGEST_WAIT = 2.0
ALWAYS = frozenset({"/livez"})


class Admission:
    """Lets in as many at once as can have a connection to the database each, and a second one for a moment.

    A request needs a thread for each of its steps and one connection over all of them. Let in without a limit, those
    that wait for a connection take every thread, those that have one wait for a thread, and nobody gets on: more than
    it can do at once stopped the API for good. Who waits for two seconds is answered 503, and comes again.
    """

    def __init__(self, app: ASGIApp, *, most: int = MOST_AT_ONCE, seconds: float = LONGEST_WAIT) -> None:
        self.app = app
        self._seconds = seconds
        self._places = asyncio.Semaphore(most)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on when its turn has come; its place is free once its answer begins, for all is committed then."""
        if scope["type"] != "http" or scope["path"] in ALWAYS:
            await self.app(scope, receive, send)
            return
        if not await self._has_come():
            answer = problem(503, "busy", "Too much is asked at once; try again.", headers={"retry-after": "1"})
            await answer(scope, receive, send)
            return
        place = _Place(self._places)

        async def leaving(message: Message) -> None:
            if message["type"] == "http.response.start":
                place.leave()
            await send(message)

        try:
            await self.app(scope, receive, leaving)
        finally:
            place.leave()

    async def _has_come(self) -> bool:
        try:
            async with asyncio.timeout(self._seconds):
                await self._places.acquire()
        except TimeoutError:
            return False
        return True


class _Place:
    """One place, which is left once."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        self._places: asyncio.Semaphore | None = places

    def leave(self) -> None:
        if self._places:
            self._places.release()
            self._places = None
