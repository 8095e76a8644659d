"""Limit exports, and how often people enter mail addresses. Counts are kept even if the call fails."""

from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from api.deps import CurrentUser, DatabaseDep
from lockbox.database import Database
from lockbox.identity import attempt_limits
from lockbox.identity.attempt_limits import AttemptLimits
from lockbox.identity.roles import Caller

EXPORTS = AttemptLimits(per_account=60, per_address=60)
# These limits are low, because a refusal reveals that an address is already in use.
ADDRESSES = AttemptLimits(per_account=20, per_address=20)
WRITING = CapacityLimiter(4)
"""Threads for exports, which are written after their request has freed its place."""

Part = TypeVar("Part", str, bytes)


def count_export(who: Caller, db: Database) -> None:
    """Raises TooMany: the person has made sixty exports in the last ten minutes."""
    with db.transaction() as session:
        counted = attempt_limits.count(session, EXPORTS, taking=who.person_id)
    counted.check("export")


def count_address(who: CurrentUser, db: DatabaseDep) -> None:
    """Raises TooMany: the person has named twenty addresses in the last ten minutes."""
    with db.transaction() as session:
        counted = attempt_limits.count(session, ADDRESSES, naming=who.person_id)
    counted.check("name an address")


async def streamed(parts: Iterable[Part]) -> AsyncIterator[Part]:
    """Each part is made in an export thread."""
    left = iter(parts)
    while (part := await to_thread.run_sync(next, left, None, limiter=WRITING)) is not None:
        yield part
