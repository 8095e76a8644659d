"""Prepared statements that outlive a ROLLBACK."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg._preparing import Key as StatementKey
from psycopg._preparing import Prepare, PrepareManager
from psycopg._queries import PostgresQuery
from psycopg.pq.abc import PGresult

PREPARED_AFTER = 1
MOST_PREPARED = 500
"""How often a statement is sent before it is kept prepared, and how many statements a connection keeps."""


class KeptStatements(PrepareManager):
    """Keeps prepared statements at a ROLLBACK.

    Plain psycopg drops all of them, because a rolled back change of the schema could have made them wrong.
    """

    # No Lockbox process continues after it changed the schema, so its statements stay valid. Each refusal is a
    # ROLLBACK, after which psycopg would plan every statement of the connection again. A test names the version of
    # psycopg for which this was checked.

    def clear(self) -> bool:
        return False

    def maybe_add_to_cache(self, query: PostgresQuery, prep: Prepare, name: bytes) -> StatementKey | None:
        """Return a key also while the statement is being prepared, so that `validate` sees its result."""
        added = super().maybe_add_to_cache(query, prep, name)
        return self.key(query) if prep is Prepare.SHOULD else added

    def validate(self, key: StatementKey, prep: Prepare, name: bytes, results: Sequence[PGresult]) -> None:
        """Keep a prepared statement whose run failed. If its preparation failed, have the server drop it."""
        failed = not self._check_results(results)
        if failed and prep is Prepare.YES:
            return
        if failed and prep is Prepare.SHOULD:
            self._to_flush.append(name)
        super().validate(key, prep, name, results)


def keep_prepared(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any], _: object = None) -> None:
    kept = KeptStatements()
    kept.prepare_threshold, kept.prepared_max = PREPARED_AFTER, MOST_PREPARED
    connection._prepared = kept  # noqa: SLF001 - psycopg offers no setting
