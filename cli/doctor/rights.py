"""Check of a login's rights by the file that grants them: a missing one is named with its statement."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from sqlalchemy import Connection, text

from lockbox.startup_checks import ServerKind

LOGINS = {
    ServerKind.API: "lockbox_api",
    ServerKind.WORKER: "lockbox_worker",
    ServerKind.NOTIFICATIONS: "lockbox_notifications",
    ServerKind.CONNECTORS: "lockbox_connectors",
}
COMMENT = re.compile(r"--.*$", re.MULTILINE)
GRANT = re.compile(
    r"GRANT\s+(?P<rights>.+?)\s+ON\s+(?P<functions>FUNCTION\s+)?(?P<things>.+?)\s+TO\s+(?P<to>.+)", re.DOTALL
)
COMMA = re.compile(r",\s*(?![^()]*\))")
RIGHT = re.compile(r"(\w+)\s*(?:\((.+)\))?", re.DOTALL)
# A right on a table or on columns of it, or to call a function by its name.
LACKING = text("""
SELECT g."right", g.thing, g.columns FROM jsonb_to_recordset(CAST(:granted AS jsonb))
    AS g ("right" text, thing text, columns text[])
WHERE CASE
    WHEN g."right" = 'EXECUTE' THEN EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
        AND p.proname = split_part(g.thing, '(', 1) AND NOT has_function_privilege(p.oid, 'EXECUTE'))
    WHEN to_regclass('public.' || g.thing) IS NULL THEN true
    WHEN g.columns IS NULL THEN NOT has_table_privilege('public.' || g.thing, g."right")
    ELSE EXISTS (SELECT FROM unnest(g.columns) AS c (name)
        WHERE NOT has_column_privilege('public.' || g.thing, c.name, g."right"))
END ORDER BY 1, 2
""")


@dataclass(frozen=True)
class GrantedRight:
    """One right of one login: on a table, on some of its columns, or to call a function."""

    right: str
    thing: str
    columns: tuple[str, ...] | None = None

    @property
    def statement(self) -> str:
        columns = f" ({', '.join(self.columns)})" if self.columns else ""
        return f"GRANT {self.right}{columns} ON {'FUNCTION ' if self.right == 'EXECUTE' else ''}{self.thing}"


def lacking(connection: Connection, kind: ServerKind) -> list[GrantedRight]:
    granted = [vars(one) for one in granted_rights(LOGINS[kind])]
    rows = connection.execute(LACKING, {"granted": json.dumps(granted)})
    return [GrantedRight(row.right, row.thing, tuple(row.columns) if row.columns else None) for row in rows]


@cache
def granted_rights(login: str) -> tuple[GrantedRight, ...]:
    script = COMMENT.sub("", (files("lockbox") / "schema" / "grants.sql").read_text(encoding="utf-8"))
    return tuple(right for statement in script.split(";") for right in _parsed(statement.strip(), login))


def _parsed(statement: str, login: str) -> Iterator[GrantedRight]:
    found = GRANT.fullmatch(statement)
    if found is None or login not in COMMA.split(found["to"].strip()):
        return
    for thing in COMMA.split(found["things"]):
        for right in COMMA.split(found["rights"]):
            named = RIGHT.fullmatch(right.strip())
            if named:
                columns = tuple(one.strip() for one in named[2].split(",")) if named[2] else None
                yield GrantedRight(named[1], " ".join(thing.split()), columns)
