"""Who may read the metrics: callers on this machine, or with the metrics token."""

from collections.abc import Callable

import httpx
import pytest

from api.app import make_app
from config.settings import Settings
from harness.people import SETTINGS
from tests.http.door import Door, facts

TOKEN = "a-token-of-forty-hexadecimal-digits-or-so"
Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(door: Door) -> Ask:
    """Return a function that reads the metrics from an address, of an API with or without a token for them."""

    def _ask(
        client: str, *, token: str | None = None, host: str = "127.0.0.1:8000", **headers: str
    ) -> httpx.Response:
        settings = Settings(**SETTINGS.model_dump() | {"metrics_token": token, "trusted_proxies": ["127.0.0.1/32"]})
        way = httpx.ASGITransport(make_app(settings, door.db), client=(client, 40000))

        async def get() -> httpx.Response:
            async with httpx.AsyncClient(transport=way, base_url=f"http://{host}") as http:
                return await http.get("/metrics", headers={n.replace("_", "-"): v for n, v in headers.items()})

        return door.runner.run(get())

    return _ask


@pytest.mark.parametrize("client", ["127.0.0.1", "127.8.9.10", "::1"])
def test_the_metrics_can_be_read_from_the_servers_own_machine(ask: Ask, client: str) -> None:
    answer = ask(client)

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    assert answer.headers["cache-control"] == "no-store"
    assert "lockbox_redis_up 1.0\n" in answer.text
    assert "# TYPE lockbox_deadline_lag_seconds histogram\n" in answer.text


@pytest.mark.parametrize("host", ["localhost", "localhost:8000", "[::1]:8000"])
def test_the_metrics_can_be_read_locally_under_other_names_of_the_machine(ask: Ask, host: str) -> None:
    assert ask("127.0.0.1", host=host).status_code == 200


@pytest.mark.parametrize("host", ["lockbox.example", "127.0.0.1.evil.example", "lockbox.example:8000"])
def test_a_call_to_the_public_host_name_needs_a_token_to_read_the_metrics(ask: Ask, host: str) -> None:
    facts(ask("127.0.0.1", host=host), 403, "metrics-closed")
    assert ask("127.0.0.1", token=TOKEN, host=host, Authorization=f"Bearer {TOKEN}").status_code == 200


@pytest.mark.parametrize(
    "header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto", "Via"]
)
def test_a_call_through_a_proxy_on_the_same_machine_does_not_count_as_local_for_metrics(
    ask: Ask, header: str
) -> None:
    facts(ask("127.0.0.1", **{header: "127.0.0.1"}), 403, "metrics-closed")


@pytest.mark.parametrize("client", ["203.0.113.7", "10.0.0.5", "::ffff:203.0.113.7", "2001:db8::1", "somewhere"])
def test_other_machines_cannot_read_the_metrics(ask: Ask, client: str) -> None:
    facts(ask(client), 403, "metrics-closed")
    said = facts(ask(client, X_Forwarded_For="127.0.0.1"), 403, "metrics-closed")
    assert "LOCKBOX_METRICS_TOKEN" in said["detail"]


def test_the_metrics_token_works_from_any_machine(ask: Ask) -> None:
    for headers in ({}, {"X_Forwarded_For": "198.51.100.1"}):
        answer = ask("203.0.113.7", token=TOKEN, Authorization=f"Bearer {TOKEN}", **headers)
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "shown",
    ["Bearer wrong", "Bearer ", "Bearer", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"],
)
def test_a_wrong_metrics_token_is_refused(ask: Ask, shown: str) -> None:
    facts(ask("203.0.113.7", token=TOKEN, Authorization=shown), 403, "metrics-closed")


def test_without_a_configured_metrics_token_no_token_is_accepted(ask: Ask) -> None:
    for shown in ("Bearer ", "Bearer None", "Bearer"):
        facts(ask("203.0.113.7", Authorization=shown), 403, "metrics-closed")


def test_a_persons_token_does_not_read_the_metrics(ask: Ask, door: Door) -> None:
    shown = f"Bearer {door.world.tokens['olga']}"

    facts(ask("203.0.113.7", token=TOKEN, Authorization=shown), 403, "metrics-closed")
