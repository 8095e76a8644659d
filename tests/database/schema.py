"""A schema as Postgres describes it, line by line, so that two schemas can be compared."""

from collections.abc import Iterator

from sqlalchemy import Engine

from devstack.stack import CHECKOUT
from lockbox import migrations
from tests.database.scenes import read

FOLDER = CHECKOUT / "lockbox" / "schema"
FILES = ("tables", "functions", "row_security", "triggers", "grants")

# Every object of the schema and what it is made of. A right is listed by column, however it was given.
OBJECTS = """
SELECT 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
    || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END
    || coalesce(CASE a.attgenerated WHEN '' THEN ' DEFAULT ' ELSE ' GENERATED ' END
        || pg_get_expr(d.adbin, d.adrelid), '') AS line
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')
UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) || ' ' || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'policy ' || tablename || ' ' || policyname || ' ' || permissive || ' ' || cmd || ' ' || roles::text
    || ' USING ' || coalesce(qual, '') || ' WITH CHECK ' || coalesce(with_check, '')
FROM pg_policies WHERE schemaname = 'public'
UNION ALL SELECT 'secured ' || relname || ' ' || relrowsecurity || ' ' || relforcerowsecurity
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
UNION ALL SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'right EXECUTE ' || p.oid::regprocedure || ' '
    || CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END
FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
WHERE p.pronamespace = 'public'::regnamespace
UNION ALL SELECT 'right ' || grantee || ' ' || privilege_type || ' ' || table_name || '.' || column_name
FROM information_schema.column_privileges WHERE table_schema = 'public'
UNION ALL SELECT 'right ' || grantee || ' ' || privilege_type || ' ' || table_name
FROM information_schema.table_privileges WHERE table_schema = 'public'
ORDER BY 1
"""
# What a migration does that takes away what processes of this version use.
ENDS_SERVICE = "CREATE OR REPLACE FUNCTION oldest_revision() RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 9999'"
HISTORY = " ".join([*migrations.history(), "9999_later"])
LATER = f"""
DO $$ BEGIN
    UPDATE alembic_version SET version_num = '9999_later';
    COMMENT ON FUNCTION oldest_revision() IS '{HISTORY}';
END $$
"""  # noqa: S608 - our own names


def objects(engine: Engine) -> list[str]:
    """Return a line for each column, constraint, index, trigger, policy, function and right."""
    return [str(row.line) for row in read(engine, OBJECTS)]


def scripts() -> Iterator[str]:
    """Yield the content of each schema file, in the order in which the files run."""
    for name in FILES:
        yield (FOLDER / f"{name}.sql").read_text()
