"""A thing that is fetched from elsewhere and kept: fresh for an hour, usable for a day, one fetch at a time."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

import structlog

from lockbox.safe_http import FetchFailed

log = structlog.get_logger(__name__)

RENEW_SECONDS = 3600.0
KEEP_SECONDS = 24 * 3600.0
PAUSE_SECONDS = 60.0
COLD_PAUSE_SECONDS = 5.0
MOST_WAITING = 8

T = TypeVar("T")


class Kept(Generic[T]):
    """One thing that is fetched and kept. Threads share it; each fetch has a thread of its own.

    `name` is what the log calls it; `clock` counts seconds, and `wait_seconds` is the longest wait for a fetch.
    `places` bounds how many calls wait at once, and may be shared with other things that are kept.
    """

    def __init__(
        self,
        load: Callable[[], T],
        *,
        name: str,
        clock: Callable[[], float],
        wait_seconds: float,
        places: threading.BoundedSemaphore | None = None,
    ) -> None:
        self._load = load
        self._name = name
        self._clock = clock
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._waiting = places or threading.BoundedSemaphore(MOST_WAITING)
        self._under_way: Future[None] | None = None
        self._value: T | None = None
        self._loaded_at = self._failed_at = self._asked_again_at = float("-inf")

    def get(self) -> T:
        """Return what is kept, after a fetch if there is nothing usable; what is stale is renewed meanwhile.

        Raises:
            FetchFailed: nothing usable is there and it could not be fetched, or was tried a moment ago.
        """
        value = self._usable()
        since_failure = self._clock() - self._failed_at
        if value is None:
            if since_failure >= COLD_PAUSE_SECONDS:
                self._wait(self._fetch())
            value = self._usable()
            if value is None:
                raise FetchFailed("nothing usable is kept")
        elif self._clock() - self._loaded_at >= RENEW_SECONDS and since_failure >= PAUSE_SECONDS:
            self._fetch()
        return value

    def in_background(self, seconds: float) -> T:
        """Return what is kept, or what a fetch brings within so many seconds, for a thread that nobody waits for.

        Raises:
            FetchFailed: as for `get`.
        """
        if self.is_empty and self._clock() - self._failed_at >= COLD_PAUSE_SECONDS:
            with suppress(TimeoutError):
                self._fetch().result(timeout=seconds)
        value = self._usable()
        if value is None:
            raise FetchFailed("nothing usable is kept")
        return value

    def again(self) -> T:
        """Return what is kept after one more fetch, or after none if one was asked for within the last minute.

        Raises:
            FetchFailed: as for `get`, or too many calls wait for the fetch.
        """
        with self._lock:
            due = self._clock() - self._asked_again_at >= PAUSE_SECONDS
            if due:
                self._asked_again_at = self._clock()
            fetching = self._under_way
        if due:
            fetching = self._fetch()
        if fetching is not None:
            self._wait(fetching)
        return self.get()

    @property
    def is_empty(self) -> bool:
        """Whether the next `get` has to fetch."""
        return self._usable() is None

    def _usable(self) -> T | None:
        with self._lock:
            return self._value if self._clock() - self._loaded_at < KEEP_SECONDS else None

    def _fetch(self) -> Future[None]:
        with self._lock:
            if self._under_way is None:
                done: Future[None] = Future()
                threading.Thread(target=self._run, args=(done,), name=f"fetch {self._name}", daemon=True).start()
                self._under_way = done
            return self._under_way

    def _wait(self, fetching: Future[None]) -> None:
        if not self._waiting.acquire(blocking=False):
            raise FetchFailed("too many calls are waiting")
        try:
            fetching.result(timeout=self._wait_seconds)
        except TimeoutError:
            raise FetchFailed("it took too long") from None
        finally:
            self._waiting.release()

    def _run(self, done: Future[None]) -> None:
        value, failed = None, True
        try:
            value, failed = self._load(), False
        except FetchFailed as error:
            log.warning("kept.fetch_failed", name=self._name, reason=error.reason)
        finally:
            with self._lock:
                self._under_way = None
                if failed:
                    self._failed_at = self._clock()
                else:
                    self._value, self._loaded_at = value, self._clock()
            done.set_result(None)
