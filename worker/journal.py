"""A worker's log. Where logs are JSON, the lines that Celery and Python print themselves become JSON too."""

import io
import json
import logging
import os
import sys
import threading
import time
from types import TracebackType
from typing import TextIO

import structlog
from celery.apps import worker as celery_worker

from config import logging as lockbox_logging
from config.logging import masked
from config.settings import Settings

log = structlog.get_logger(__name__)
STDERR = 2


class JournalStream(io.TextIOBase):
    def __init__(self) -> None:
        super().__init__()
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                log.warning("process.printed", text=line)
        return len(text)


def begin(settings: Settings) -> None:
    # A child process calls this again, because it inherits its parent's streams and configuration.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    lockbox_logging.configure(settings)
    if settings.log_format != "json":
        return
    logging.captureWarnings(capture=True)
    sys.stdout = sys.stderr = JournalStream()
    sys.excepthook = _crashed
    threading.excepthook = _thread_crashed
    # Celery's own function writes to the file descriptor and bypasses these streams.
    celery_worker.safe_say = _say  # type: ignore[attr-defined] # the stubs lack it


def _crashed(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("process.crashed", exc_info=(kind, error, trace))


def _thread_crashed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None:
        _crashed(failed.exc_type, failed.exc_value, failed.exc_traceback)


def _say(message: str, _: TextIO | None = None) -> None:
    """Write Celery's messages from signal handlers in one write: another thread could hold a logger's lock."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = {"text": masked(message), "event": "process.printed", "logger": __name__, "level": "info", "timestamp": at}
    os.write(STDERR, f"{json.dumps(line)}\n".encode())
