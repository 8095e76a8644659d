"""The Celery app and all of its settings, shared by workers, pollers and Flower."""

import logging
from typing import Any

from celery import Celery, Task
from celery.signals import setup_logging, task_postrun, task_prerun
from celery.worker.control import Panel
from kombu import Queue
from structlog.contextvars import bind_contextvars, clear_contextvars

from catalogue.unsafe_settings import UnsafeSettings
from config.settings import Settings
from worker import journal
from worker.bootstep import Pollers
from worker.message_filter import INSPECTION, TASKS
from worker.runtime import settings
from worker.transport import register

CORE, NOTIFY, CONNECT, MAINTENANCE = "core", "notify", "connect", "maintenance"
VISIBILITY_SECONDS = 120
TASK_SECONDS = 8

ROUTES = {name: {"queue": queue} for name, queue in TASKS.items()}


class ForbiddenTimer(Exception):  # noqa: N818 - it names what was found
    """A task had an eta or a countdown. Timers belong in Postgres, not in a worker's memory."""


def configuration(shutdown_seconds: float) -> dict[str, Any]:
    """Return Celery's settings; each is explained in docs/decisions/0033-celery-tasks.md."""
    return {
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "task_ignore_result": True,
        "task_acks_late": True,
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        "task_reject_on_worker_lost": True,
        "task_time_limit": TASK_SECONDS,
        "task_queues": [Queue(name) for name in (CORE, NOTIFY, CONNECT, MAINTENANCE)],
        "task_default_queue": CORE,
        "task_create_missing_queues": False,
        "task_routes": ROUTES,
        "task_send_sent_event": True,
        "worker_send_task_events": True,
        "worker_prefetch_multiplier": 1,
        "worker_eta_task_limit": 1000,
        "worker_soft_shutdown_timeout": shutdown_seconds,
        "worker_enable_soft_shutdown_on_idle": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_pool_start_method": "fork",
        "worker_proc_alive_timeout": 10.0,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_acquire_timeout": 5,
        "broker_transport_options": {
            "visibility_timeout": VISIBILITY_SECONDS,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        "enable_utc": True,
        "timezone": "UTC",
    }


class TimerlessCelery(Celery):
    """A Celery app that refuses timers. A signal cannot do that: Celery logs a receiver's error and continues."""

    def send_task(self, name: str, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - Celery's signature
        if options.get("eta") or options.get("countdown"):
            raise ForbiddenTimer(f"{name}: no eta and no countdown; the schedule keeps time")
        return super().send_task(name, *args, **options)


def make_app(settings: Settings) -> Celery:
    """Return the app of this installation. Workers get the pollers as a step that runs even without the broker."""
    register()
    _answer_questions_only()
    celery = TimerlessCelery("lockbox", broker=settings.require("redis_url"), include=["worker.tasks"])
    celery.conf.update(configuration(settings.shutdown_seconds))
    celery.steps["worker"].add(Pollers)
    return celery


def _answer_questions_only() -> None:
    """Remove every command that changes a worker: anyone with access to Redis could broadcast such a command."""
    for name in Panel.data.keys() - INSPECTION:
        del Panel.data[name]
    for name in Panel.meta.keys() - INSPECTION:
        del Panel.meta[name]


@setup_logging.connect(weak=False)
def _our_logs(**_: object) -> None:
    journal.begin(settings())
    logging.getLogger("celery.app.trace").setLevel(logging.WARNING)
    logging.getLogger("celery.worker.strategy").setLevel(logging.WARNING)


@task_prerun.connect(weak=False)
def _name_the_task(task: "Task[..., Any]", task_id: str, **_: object) -> None:
    bind_contextvars(task=task.name, task_id=task_id)


@task_postrun.connect(weak=False)
def _forget_the_task(**_: object) -> None:
    clear_contextvars()


try:
    app = make_app(settings())
except UnsafeSettings as error:
    raise SystemExit(f"lockbox: {error}") from None
