"""Mark in an index of the schedule whether it is whole, or how far a rebuild has come."""

import math
from typing import Any
from uuid import UUID, uuid4

from redis import Redis

from lockbox.redis_scripts import MARK, redis_errors
from lockbox.text_rules import UUID_FORM

EPOCH, BEGUN = "epoch", "begun"


class IndexRebuild:
    """The mark of the index that is the sorted set `key`: a member that is never due, and is lost when data is lost.

    It names the server process of Redis.
    """

    def __init__(self, client: "Redis", key: str) -> None:
        self._client = client
        self._key = key
        self._mark = client.register_script(MARK)

    def is_whole(self) -> bool:
        """Return whether the index was completed under the server process that answers now.

        Raises:
            RedisUnavailable: Redis can't be reached.
        """
        with redis_errors():
            return self._client.zscore(self._key, self._epoch()) is not None

    def begin(self) -> tuple[str, UUID]:
        """Return the mark of a rebuild, and the last id that it has armed; begin one if there is none.

        The index is incomplete from now on.

        Raises:
            RedisUnavailable: Redis can't be reached.
        """
        with redis_errors():
            begun = f"{BEGUN}:{self._run_id()}:"
            marks: Any = self._client.zrangebyscore(self._key, "+inf", "+inf")
            known = [mark for one in marks if (mark := one.decode(errors="replace")).startswith(begun)]
            if len(marks) == len(known) == 1 and UUID_FORM.fullmatch(after := known[0].rpartition(":")[2]):
                return known[0], UUID(after)
            after = UUID(int=0)
            mark = f"{begun}{uuid4().hex}:{after}"
            self._client.zremrangebyscore(self._key, "+inf", "+inf")
            self._client.zadd(self._key, {mark: math.inf})
        return mark, after

    def move(self, mark: str, after: UUID) -> str:
        """Note how far a rebuild has come; return its new mark, or nothing where the index was lost since.

        Raises:
            RedisUnavailable: Redis can't be reached.
        """
        moved = f"{mark.rpartition(':')[0]}:{after}"
        return moved if self._replace(mark, moved) else ""

    def complete(self, mark: str) -> bool:
        """Note that the index holds all that Postgres promises; return False if it was lost since the rebuild began.

        Raises:
            RedisUnavailable: Redis can't be reached.
        """
        return self._replace(mark, self._epoch())

    def _replace(self, mark: str, by: str) -> bool:
        with redis_errors():
            return bool(self._mark(keys=[self._key], args=[mark, by]))

    def _epoch(self) -> str:
        return f"{EPOCH}:{self._run_id()}"

    def _run_id(self) -> str:
        with redis_errors():
            server: Any = self._client.info("server")
        return str(server["run_id"])
