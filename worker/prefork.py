"""Celery's pool of child processes, which never forgets a living child."""

# Kombu's event loop handles all events of one poll by their descriptors. When several children end together, the
# first event makes Celery replace all of them, and the new children's descriptors reuse the old numbers. The
# remaining events then seem to say that a new child has ended. Celery 5.7 stops watching this child, finds no
# descriptor for it when it reconnects to the broker, and ends the worker with "file descriptor is None" (see
# celery/celery#9250).

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
