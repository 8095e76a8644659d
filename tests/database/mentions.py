"""Find a word in a whole database: in every column of every table, whatever its type."""

from lockbox.database import Database
from tests.database.scenes import read

COLUMNS = """
SELECT c.relname AS of_table, quote_ident(a.attname) AS name, a.atttypid = 'bytea'::regtype AS is_bytes
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
"""
IN_TEXT = "position(lower(:word) IN lower(t.{name}::text)) > 0"
IN_FIELDS = """
SELECT DISTINCT f.key AS name FROM event_details d, jsonb_each(d.fields) f
WHERE position(lower(:word) IN lower(f.value ->> 1)) > 0
"""
IN_BYTES = "position(convert_to(:word, 'UTF8') IN t.{name}) > 0"


def mentions(db: Database, word: str) -> set[str]:
    """Return the columns, and the fields of event details, that contain a word; bytes are searched as plain text."""
    found = set()
    for column in read(db, COLUMNS):
        where = (IN_BYTES if column.is_bytes else IN_TEXT).format(name=column.name)
        query = f"SELECT DISTINCT '{column.name}' AS name FROM {column.of_table} t WHERE {where}"  # noqa: S608 - ours
        if (column.of_table, column.name) == ("event_details", "fields"):
            query = IN_FIELDS
        found |= {f"{column.of_table}.{row.name}" for row in read(db, query, word=word)}
    return found
