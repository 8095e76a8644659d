"""Python runs this first where the folder is on its path: a process whose wall clock is off by some seconds."""

import datetime
import os
import time

SHIFT = int(os.environ["CHAOS_SHIFT"])
_time, _time_ns, _datetime = time.time, time.time_ns, datetime.datetime


class _Meta(type):
    """Real moments are instances of the shifted class too: libraries make and test them."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _datetime)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, _datetime)


class _Shifted(_datetime, metaclass=_Meta):
    """The class of moments, whose `now` is off; what it returns are plain ones."""

    __slots__ = ()

    def __new__(cls, *parts: object, **named: object) -> "_datetime":  # type: ignore[misc]
        return _datetime(*parts, **named)  # type: ignore[arg-type]

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "_datetime":  # type: ignore[override]
        return _datetime.now(tz) + datetime.timedelta(seconds=SHIFT)

    @classmethod
    def utcnow(cls) -> "_datetime":  # type: ignore[override]
        return _datetime.fromtimestamp(time.time(), datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> "_datetime":  # type: ignore[override]
        return cls.now()


def _shift() -> None:
    time.time = lambda: _time() + SHIFT
    time.time_ns = lambda: _time_ns() + SHIFT * 1_000_000_000
    _Shifted.__name__ = _Shifted.__qualname__ = "datetime"
    _Shifted.__module__ = "datetime"
    datetime.datetime = _Shifted  # type: ignore[misc]


_shift()
