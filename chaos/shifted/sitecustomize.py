"""Python runs this first where the folder is on its path: a process whose wall clock is off by some seconds."""

import datetime as dt
import os
import time
from typing import Any, TypeAlias

SHIFT = int(os.environ["CHAOS_SHIFT"])
_time, _time_ns = time.time, time.time_ns
_Real: TypeAlias = dt.datetime


class _Meta(type):
    """Real moments are instances of the shifted class too: libraries make and test them."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _Real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _Real)


class _Shifted(_Real, metaclass=_Meta):
    """The class of moments, whose `now` is off; what it returns are plain ones."""

    __slots__ = ()

    def __new__(cls, *parts: Any, **named: Any) -> "_Real":  # type: ignore[misc]  # noqa: ANN401 - as datetime's own
        return _Real(*parts, **named)

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> "_Real":  # type: ignore[override]
        return _Real.now(tz) + dt.timedelta(seconds=SHIFT)

    @classmethod
    def utcnow(cls) -> "_Real":  # type: ignore[override]
        return _Real.fromtimestamp(time.time(), dt.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> "_Real":  # type: ignore[override]
        return cls.now()


def _shift() -> None:
    time.time = lambda: _time() + SHIFT
    time.time_ns = lambda: _time_ns() + SHIFT * 1_000_000_000
    _Shifted.__name__ = _Shifted.__qualname__ = "datetime"
    _Shifted.__module__ = "datetime"
    dt.datetime = _Shifted  # type: ignore[misc]


_shift()
