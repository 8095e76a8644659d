"""Fetch a value and cache it: renew it in the background, pause after a failure, and limit the calls that wait."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar

import structlog

from lockbox.safe_http import FetchFailed, FetchFailure

log = structlog.get_logger(__name__)
RENEW_SECONDS = 3600.0
KEEP_SECONDS = 24 * 3600.0
PAUSE_SECONDS = 60.0
COLD_PAUSE_SECONDS = 5.0
MOST_FETCHES = 8
T = TypeVar("T")


class CachedFetch(Generic[T]):
    """A value that is fetched and cached. Threads share it; each fetch has a thread of its own.

    `name` is its name in the log; `clock` counts seconds, and `wait_seconds` is the longest wait for a fetch.
    `places` limits how many calls wait at once, and may be shared with other cached values.
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
        self._waiting = places or threading.BoundedSemaphore(MOST_FETCHES)
        self._under_way: Future[None] | None = None
        self._value: T | None = None
        self._failure = FetchFailed("nothing usable is kept")
        self._loaded_at = self._failed_at = self._asked_again_at = float("-inf")

    def due(self) -> Future[None] | None:
        """Begin a fetch where one is needed, and return it where nothing can be served before it ends.

        A stale value is renewed in the background. After a failure there is a pause, in which nothing is begun.
        """
        since_failure = self._clock() - self._failed_at
        if self.usable() is None:
            return self._fetch() if since_failure >= COLD_PAUSE_SECONDS else None
        if self._clock() - self._loaded_at >= RENEW_SECONDS and since_failure >= PAUSE_SECONDS:
            self._fetch()
        return None

    def renewal(self) -> Future[None] | None:
        """Begin one more fetch, at most once a minute; return the one under way, if there is any."""
        with self._lock:
            is_due = self._clock() - self._asked_again_at >= PAUSE_SECONDS
            if is_due:
                self._asked_again_at = self._clock()
            fetching = self._under_way
        return self._fetch() if is_due else fetching

    def usable(self) -> T | None:
        """Return the cached value, None if there is none or it is too old."""
        with self._lock:
            return self._value if self._clock() - self._loaded_at < KEEP_SECONDS else None

    def get(self) -> T:
        """Return the cached value, after a fetch if there is no usable one.

        Raises:
            FetchFailed: nothing usable is there and it could not be fetched, or was tried a moment ago.
        """
        self._wait(self.due())
        return self._present()

    def in_background(self, seconds: float) -> T:
        """Return the cached value, or the result of a fetch within so many seconds, for a background thread.

        Raises:
            FetchFailed: as for `get`.
        """
        fetching = self.due()
        if fetching is not None:
            with suppress(TimeoutError):
                fetching.result(timeout=seconds)
        return self._present()

    def again(self) -> T:
        """Return the value after one more fetch, or without one if it was fetched within the last minute.

        Raises:
            FetchFailed: as for `get`, or too many calls wait for the fetch.
        """
        self._wait(self.renewal())
        return self.get()

    def _present(self) -> T:
        value = self.usable()
        if value is None:
            raise FetchFailed(self._failure.reason, trouble=self._failure.trouble)
        return value

    def _fetch(self) -> Future[None]:
        with self._lock:
            if self._under_way is None:
                done: Future[None] = Future()
                threading.Thread(target=self._run, args=(done,), name=f"fetch {self._name}", daemon=True).start()
                self._under_way = done
            return self._under_way

    def _wait(self, fetching: Future[None] | None) -> None:
        if fetching is None:
            return
        if not self._waiting.acquire(blocking=False):
            raise FetchFailed("too many calls are waiting", trouble=FetchFailure.BUSY)
        try:
            fetching.result(timeout=self._wait_seconds)
        except TimeoutError:
            raise FetchFailed("it took too long", trouble=FetchFailure.TIME) from None
        finally:
            self._waiting.release()

    def _run(self, done: Future[None]) -> None:
        value, failed = None, True
        try:
            value, failed = self._load(), False
        except FetchFailed as error:
            self._failure = error
            log.warning("oidc.fetch_failed", name=self._name, reason=error.reason)
        finally:
            with self._lock:
                self._under_way = None
                if failed:
                    self._failed_at = self._clock()
                else:
                    self._value, self._loaded_at = value, self._clock()
            done.set_result(None)
