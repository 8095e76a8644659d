"""Celery's pool of child processes, which never forgets a living child."""

# The event loop of kombu works through descriptors that it polled at once. When several children end together, the
# first of them has all replaced, and the new children's descriptors get the numbers of the old ones: the events that
# are left then say of a new child that it ended. Celery 5.7 stops watching it, finds no descriptor of it when it
# connects to the broker again, and ends the worker: "file descriptor is None" (see celery/celery#9250).

from typing import Any

from celery.concurrency import asynpool, prefork

_AsynPool: Any = asynpool.AsynPool  # the stubs lack most of it


class ChildPool(_AsynPool):  # type: ignore[misc]  # of any type
    def _event_process_exit(self, hub: Any, proc: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Replace a child that has ended. For a child that is still alive, the event comes again when it ends."""
        if not proc._is_alive():  # noqa: SLF001 - as Celery does
            super()._event_process_exit(hub, proc)


class PreforkPool(prefork.TaskPool):
    Pool = ChildPool
