"""A schema as Postgres tells of it, line by line, so that any difference between two shows."""

from sqlalchemy import Engine

from tests.database.scenes import read

# Every object of the schema and what it is made of.
OBJECTS = """
SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable AS line
FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'trigger ' || pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'policy ' || tablename || ' ' || policyname || ' ' || cmd || ' ' || roles::text || ' '
    || coalesce(qual, '') || ' ' || coalesce(with_check, '') FROM pg_policies WHERE schemaname = 'public'
UNION ALL SELECT 'secured ' || relname || ' ' || relrowsecurity || ' ' || relforcerowsecurity
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
UNION ALL SELECT 'function ' || pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'right to ' || oid::regprocedure || ' ' || coalesce(proacl::text, 'everybody')
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL SELECT 'right ' || grantee || ' ' || privilege_type || ' ' || table_name || '.' || column_name
FROM information_schema.column_privileges WHERE table_schema = 'public'
UNION ALL SELECT 'right ' || grantee || ' ' || privilege_type || ' ' || table_name
FROM information_schema.table_privileges WHERE table_schema = 'public'
UNION ALL SELECT 'at ' || version_num FROM alembic_version
ORDER BY 1
"""


def objects(engine: Engine) -> list[str]:
    """Return a line for each column, constraint, index, trigger, policy, function and right."""
    return [str(row.line) for row in read(engine, OBJECTS)]
