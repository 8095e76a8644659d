"""Limit exports of tables and audit logs, and write them in threads of their own."""

from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from lockbox.database import Database
from lockbox.identity import attempt_limits
from lockbox.identity.attempt_limits import AttemptLimits
from lockbox.identity.roles import Caller

MOST = 60
LIMITS = AttemptLimits(per_account=MOST, per_address=MOST)
WRITING = CapacityLimiter(4)
"""Threads for exports, which are written after their request has given up its place."""

Part = TypeVar("Part", str, bytes)


def count(db: Database, who: Caller) -> None:
    """Count an export by a person, in a transaction that stands whatever follows.

    Raises:
        TooMany: they have made sixty in the last ten minutes.
    """
    with db.transaction() as session:
        counted = attempt_limits.count(session, LIMITS, taking=who.person_id)
    counted.check("export")


async def streamed(parts: Iterable[Part]) -> AsyncIterator[Part]:
    """Yield the parts of a file, each made in an export thread."""
    left = iter(parts)
    while (part := await to_thread.run_sync(next, left, None, limiter=WRITING)) is not None:
        yield part
