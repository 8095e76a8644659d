"""The stream of server-sent events to a page."""

import asyncio
import secrets
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import Depends, HTTPException, Query, Request, Response
from starlette.types import Receive, Scope, Send

from api import browser
from api.browser import Visitor
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.live import LIST, OPERATIONS, REQUEST, LiveUpdates, Subscription
from api.portal import phrases
from api.portal.pages import HEADERS, NO_PAGE, TAG
from lockbox.admin import permissions
from lockbox.database import UnitOfWork
from lockbox.errors import ForeignForm, Invalid, NotFound, NotSignedIn
from lockbox.identity.roles import Role
from lockbox.requests import queries

log = structlog.get_logger(__name__)

router = CallRouter(tags=[TAG], include_in_schema=False)

MOST_TOPICS = 8
SLOW_SECONDS = 20.0
AGAIN_AFTER_MS, SPREAD_MS = 3000, 4000
WHOLE = frozenset({LIST, OPERATIONS})


class EventStream(Response):
    def __init__(self, room: LiveUpdates, seat: Subscription, position: str | None) -> None:
        super().__init__(None, headers=HEADERS | {"x-accel-buffering": "no"}, media_type="text/event-stream")
        del self.headers["content-length"]
        self._room = room
        self._seat = seat
        self._position = position

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Raises TooMany, Busy: no stream is free. This is raised before any part of the answer is sent."""
        self._room.sit(self._seat, self._position)
        leaving = asyncio.create_task(_until_gone(receive, self._seat))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            # The wait is random, so that the pages of a process that ended reconnect one after the other.
            wait = AGAIN_AFTER_MS + secrets.randbelow(SPREAD_MS)
            await _write(send, f"retry: {wait}\n\n".encode())
            while not self._seat.is_over:
                await _write(send, await self._seat.next(self._room.beat, self._room.sent_position))
            await _write(send, await self._seat.next(0, self._room.sent_position), is_last=True)
        except (TimeoutError, OSError) as error:
            log.info("live_updates.client_dropped", error=type(error).__name__)
        finally:
            self._room.leave(self._seat)
            leaving.cancel()


async def _until_gone(receive: Receive, seat: Subscription) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    seat.close()


async def _write(send: Send, said: bytes, *, is_last: bool = False) -> None:
    """Raises TimeoutError: the client read nothing for too long."""
    async with asyncio.timeout(SLOW_SECONDS):
        await send({"type": "http.response.body", "body": said, "more_body": not is_last})


def subscribe(
    request: Request, chosen: SettingsDep, session: SessionDep, topics: Annotated[str, Query(max_length=400)] = ""
) -> Subscription:
    """The person must be allowed to see all topics."""
    if request.headers.get("sec-fetch-site") not in {None, "same-origin"}:
        raise ForeignForm(browser.FOREIGN)
    try:
        visitor = browser.visitor(request, session, chosen)
    except NotSignedIn as nobody:
        raise HTTPException(401, nobody.detail) from None
    return _subscription(session, visitor, topics.split())


def _subscription(session: UnitOfWork, visitor: Visitor, topics: list[str]) -> Subscription:
    try:
        wanted = frozenset(UUID(topic.removeprefix(REQUEST)) for topic in topics if topic not in WHOLE)
    except ValueError:
        raise Invalid(phrases.TOPICS.format(most=MOST_TOPICS), field="topics") from None
    if not 0 < len(topics) <= MOST_TOPICS or any(
        topic not in WHOLE and not topic.startswith(REQUEST) for topic in topics
    ):
        raise Invalid(phrases.TOPICS.format(most=MOST_TOPICS), field="topics")
    if OPERATIONS in topics:
        permissions.capacity(visitor.caller, (Role.OPERATOR,))
    if queries.known(session, visitor.caller, wanted) != wanted:
        raise NotFound(phrases.NO_REQUEST)
    return Subscription(visitor.caller, visitor.secret, wanted, LIST in topics, OPERATIONS in topics)


@router.get("/live", tags=[NO_PAGE])
async def listen(
    request: Request,
    seat: Annotated[Subscription, Depends(subscribe)],
    since: Annotated[str | None, Query(max_length=40)] = None,
) -> Response:
    room: LiveUpdates = request.app.state.live_updates
    return EventStream(room, seat, request.headers.get("last-event-id") or since)
