"""The last line of a run: what a missing program left out, and how to install it."""

from tests.programs import left_out


def test_where_nothing_is_missing_nothing_is_said() -> None:
    assert left_out(lambda name: f"/usr/bin/{name}") == ""


def test_one_browser_is_as_good_as_the_other() -> None:
    assert left_out(lambda name: None if name == "chromium-headless-shell" else f"/usr/bin/{name}") == ""


def test_what_is_missing_is_named_with_how_to_install_it() -> None:
    assert left_out(lambda _: None) == (
        "Not tested here: the pages in a browser and Redis itself beside Valkey and PgBouncer before Postgres. "
        "Install it: apt-get install chromium-headless-shell redis-server pgbouncer"
    )
    assert left_out(lambda name: None if name == "redis-server" else f"/usr/bin/{name}") == (
        "Not tested here: Redis itself beside Valkey. Install it: apt-get install redis-server"
    )
