"""Lists of columns come from the class of a table in its order; a column that is not there is refused at once."""

from collections.abc import Callable

import pytest

from lockbox.audit.models import AuditKey, Event, EventDetail, Tile
from lockbox.notifications.models import OutboxEvent
from lockbox.requests.models import Decision, IdempotencyKey
from lockbox.sql import columns, excluded, insert, insert_list, insert_rows, unnested


def test_a_select_list_contains_all_columns_of_a_table_or_only_the_wanted_columns() -> None:
    assert columns(Tile, "t") == "t.log_id, t.level, t.number, t.hashes"
    assert columns(Tile, "t", "number", "level") == "t.number, t.level"


def test_generated_columns_are_not_written_by_sql_builders() -> None:
    assert "log_id" in columns(Event, "e")
    assert "log_id" not in insert_list(Event)
    assert "number" not in insert_list(OutboxEvent)


def test_an_sql_insert_uses_named_parameters_or_given_expressions() -> None:
    assert insert(AuditKey, purpose="'log'") == (
        "INSERT INTO audit_keys (key, purpose, first_used_at)\nVALUES (:key, 'log', :first_used_at)"
    )
    assert insert(AuditKey, "k", but={"purpose"}).startswith("INSERT INTO audit_keys AS k (key, first_used_at)")


def test_only_array_and_json_columns_are_cast_in_sql() -> None:
    assert "CAST(:d_principals AS uuid[])" in insert(Decision, prefix="d_")
    assert "CAST(:answer AS jsonb)" in insert(IdempotencyKey)
    assert insert(Decision).count("CAST") == 3


def test_rows_are_inserted_from_arrays_without_cutting_text() -> None:
    assert insert_rows(AuditKey, first_used_at=":at") == (
        "INSERT INTO audit_keys (key, purpose, first_used_at)\nSELECT n.key, n.purpose, :at "
        "FROM unnest(CAST(:key AS text[]), CAST(:purpose AS text[])) AS n (key, purpose)"
    )
    assert unnested(Event, "e", "at", "seq", "body", prefix="e_") == (
        "unnest(CAST(:e_at AS timestamptz[]), CAST(:e_seq AS integer[]), CAST(:e_body AS bytea[])) "
        "AS e (at, seq, body)"
    )


def test_an_sql_upsert_sets_the_inserted_columns() -> None:
    assert excluded(EventDetail, but={"event_id"}) == "fields = excluded.fields"


@pytest.mark.parametrize(
    "make",
    [
        lambda: columns(Tile, "t", "gone"),
        lambda: insert(Tile, but={"gone"}),
        lambda: insert(Tile, gone="1"),
        lambda: unnested(Tile, "n", "gone"),
    ],
)
def test_an_unknown_column_in_a_column_list_is_refused(make: Callable[[], str]) -> None:
    with pytest.raises(LookupError, match="Tile has no gone"):
        make()
