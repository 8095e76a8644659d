"""Transactions as the owner of the database, to whom row-level security does not apply."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from lockbox.database import BOUNDS, NO_KEYS, ProcessKeys, UnitOfWork, WarnedSession, make_engine, postgres_clock

BIND = text("""
SELECT set_config(name, value, true) FROM unnest(CAST(:names AS text[]), CAST(:values AS text[])) AS b (name, value)
""")


@contextmanager
def as_owner(url: str, keys: ProcessKeys = NO_KEYS, *, armed_by_reconcile: bool = False) -> Iterator[UnitOfWork]:
    """Open one transaction as the database's owner, for manual set-up.

    To add people or tokens, pass the API's keyring.

    Raises:
        RuntimeError: the transaction has entries for the schedule, and `armed_by_reconcile` is not set.
    """
    engine = make_engine(url, role="owner")
    try:
        with WarnedSession(engine, expire_on_commit=False) as orm:
            work = UnitOfWork(orm, postgres_clock, keys)
            with orm.begin():
                work.execute(BIND, {"names": list(BOUNDS), "values": list(BOUNDS.values())})
                yield work
                if work.promises and not armed_by_reconcile:
                    raise RuntimeError("a promise was made where nobody keeps it")
    finally:
        engine.dispose()
