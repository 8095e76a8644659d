"""What tests over HTTP need of a sealed audit log."""

from sqlalchemy import text

from tests.http.door import Door

ONE = text("SELECT CAST(event_id AS text) FROM seals WHERE log_id = :tenant ORDER BY number LIMIT 1")


def one_event(door: Door) -> str:
    with door.root.connect() as connection:
        return str(connection.execute(ONE, {"tenant": door.world.tenant.id}).scalar_one())
