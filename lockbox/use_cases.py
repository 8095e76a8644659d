"""Run one use case in its own transaction, and once more if Postgres refuses it."""

from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import DBAPIError

from lockbox.database import PLANS_OUTDATED, Database, UnitOfWork

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

CHANGED_SINCE = frozenset({"40001", "42501", PLANS_OUTDATED})
"""The SQL states by which triggers and row policies refuse a statement whose conditions no longer hold, for example
because a policy became stricter.

The last state is Postgres' refusal of a statement that was prepared before a migration.
"""


def run_alone(db: Database, use_case: Callable[[UnitOfWork], Answer]) -> Answer:
    """Run a use case, and return its answer after the commit.

    Postgres checks the policy and people's roles again, at the latest at the commit. If Postgres refuses, the use
    case runs a second time: it reads the changed rows, and refuses with its own error.

    Raises:
        DBAPIError: Postgres refuses a second time, or fails.
    """
    try:
        return _run(db, use_case)
    except DBAPIError as error:
        if not has_changed_since(error):
            raise
        log.info("use_case.judged_anew", sqlstate=getattr(error.orig, "sqlstate", None))
    return _run(db, use_case)


def has_changed_since(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) in CHANGED_SINCE


def _run(db: Database, use_case: Callable[[UnitOfWork], Answer]) -> Answer:
    with db.transaction() as session:
        return use_case(session)
