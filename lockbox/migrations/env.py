"""Run the migrations on the connection that Alembic receives."""

from alembic import context

connection = context.config.attributes["connection"]
connection.exec_driver_sql("SET LOCAL lock_timeout = '4s'")
context.configure(connection=connection, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
