"""Python runs this first where the folder is on its path: a process whose wall clock is off by some seconds."""

import ctypes
import gc
import os
import time
from datetime import datetime, timedelta, tzinfo
from typing import Any

SHIFT = int(os.environ["CHAOS_SHIFT"])


def _shift() -> None:
    """Move what the time is asked by; `datetime` stays the class that it is, for others look at their types."""
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
