"""Make this process' wall clock wrong by some seconds. Python runs this first if the folder is on its path."""

import ctypes
import gc
import os
import time
from datetime import datetime, timedelta, tzinfo
from typing import Any

SHIFT = int(os.environ["CHAOS_SHIFT"])


def _shift() -> None:
    """Shift the functions that tell the time; `datetime` stays the same class, because others check for it."""
    members: dict[str, Any] = gc.get_referents(vars(datetime))[0]
    now, time_, time_ns = datetime.now, time.time, time.time_ns

    def moved(cls: type[datetime], tz: tzinfo | None = None) -> datetime:
        there = now(tz) + timedelta(seconds=SHIFT)
        return there if cls is datetime else cls.fromisoformat(there.isoformat())

    time.time = lambda: time_() + SHIFT
    time.time_ns = lambda: time_ns() + SHIFT * 1_000_000_000
    members["now"] = classmethod(moved)
    members["today"] = classmethod(lambda cls: cls.now())
    members["utcnow"] = classmethod(lambda cls: cls(1970, 1, 1) + timedelta(seconds=time.time()))
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime))


_shift()
