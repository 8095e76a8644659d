"""Routes with a transaction that commits before the answer is sent."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from anyio import CancelScope, CapacityLimiter, to_thread
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from sqlalchemy.exc import DBAPIError

from lockbox.database import Database, UnitOfWork
from lockbox.use_cases import has_changed_since

log = structlog.get_logger(__name__)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


@dataclass
class CallTransactions:
    """`opened` is the transaction that the route ends.

    A call `may_be_repeated` if Postgres refused its first transaction, because then nothing was committed. Work that
    must not be repeated, such as using up a code, is done in `Database.transaction`, whose errors never set
    `may_be_repeated`.
    """

    opened: AbstractContextManager[UnitOfWork] | None = None
    has_committed: bool = False
    may_be_repeated: bool = False


@contextmanager
def transaction(request: Request, db: Database) -> Iterator[UnitOfWork]:
    noted: CallTransactions = request.state.transactions
    try:
        with db.transaction() as session:
            yield session
    except DBAPIError as error:
        noted.may_be_repeated = has_changed_since(error) and not noted.has_committed
        raise
    noted.has_committed = True


def begin(request: Request, db: Database) -> UnitOfWork:
    """Begin the transaction that the route ends."""
    request.state.transactions.opened = opened = transaction(request, db)
    return opened.__enter__()


class CallRoute(APIRoute):
    """A route that ends its transaction before it sends the answer, and repeats a call if that is safe.

    Postgres refuses a write if the customer's policy or the caller's role has changed since the call read it. The
    repeated call reads the change.
    """

    def get_route_handler(self) -> Handler:
        handle = partial(_to_the_end, super().get_route_handler())

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except DBAPIError as error:
                if not request.state.transactions.may_be_repeated:
                    raise
                log.info("call.judged_anew", sqlstate=getattr(error.orig, "sqlstate", None))
            return await handle(request)

        return handled


class CallRouter(APIRouter):
    def __init__(self, *, route_class: type[APIRoute] = CallRoute, **given: Any) -> None:  # noqa: ANN401 - as FastAPI declares it
        super().__init__(route_class=route_class, **given)


async def _to_the_end(handle: Handler, request: Request) -> Response:
    request.state.transactions = CallTransactions()
    try:
        answer = await handle(request)
    except BaseException as error:
        await _end(request, error)
        raise
    await _end(request)
    return answer


async def _end(request: Request, error: BaseException | None = None) -> None:
    """End the transaction in an extra thread, because waiting calls may occupy all threads of the default limit."""
    opened = request.state.transactions.opened
    if opened is None:
        return
    end = partial(opened.__exit__, type(error) if error else None, error, error.__traceback__ if error else None)
    with CancelScope(shield=True):
        await to_thread.run_sync(end, limiter=CapacityLimiter(1))
