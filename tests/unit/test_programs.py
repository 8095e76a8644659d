"""The last line of a run: what a missing program left out, and how to install it."""

import pytest

from tests.programs import left_out, need


def test_where_nothing_is_missing_nothing_is_said() -> None:
    assert left_out(lambda name: f"/usr/bin/{name}") == ""


def test_one_browser_is_as_good_as_the_other() -> None:
    assert left_out(lambda name: None if name == "chromium-headless-shell" else f"/usr/bin/{name}") == ""


def test_what_is_missing_is_named_with_how_to_install_it() -> None:
    assert left_out(lambda _: None) == (
        "Not tested here: the pages in a browser and Redis itself beside Valkey and PgBouncer before Postgres and "
        "the rules for Prometheus and the files for Kubernetes and the units of systemd and "
        "the webhook receiver in Node. "
        "Install it: apt-get install chromium-headless-shell redis-server pgbouncer promtool kustomize systemd nodejs"
    )
    assert left_out(lambda name: None if name == "redis-server" else f"/usr/bin/{name}") == (
        "Not tested here: Redis itself beside Valkey. Install it: apt-get install redis-server"
    )


def test_a_missing_program_fails_in_ci_and_is_left_out_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception):
        need("no-such-program")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        need("no-such-program")
