"""The operator's two exceptions: private networks, and a proxy that gets a checked address and never a name."""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterator
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr, ValidationError

from api.app import make_app, make_database
from catalogue.service_catalogue import CaseSystem, Catalogue, Plan, Service
from config.outbound import OutboundProxy, OutboundRoute
from config.settings import Settings
from connectors.models import ConnectorKind
from connectors.protocol import ConnectorFailed
from gate.bearer_tokens import TokenRealm
from gate.engineers import callers_of
from harness.connect_proxy import ConnectProxy
from harness.network import HOST, serving
from lockbox import safe_http
from lockbox.admin.webhooks import WebhookUrlPolicy
from lockbox.errors import Busy
from lockbox.identity.oidc_providers import IdentityProviders, ProviderUnavailable
from lockbox.notifications.endpoints import new_secret
from lockbox.notifications.senders.protocol import SendFailed, WebhookCall
from lockbox.notifications.webhook import HttpWebhooks
from lockbox.requests.case_check import AdapterQuestion, AdapterSilent, CaseAdapters
from lockbox.safe_http import FetchFailed, FetchFailure, fetch
from lockbox.sql import new_id
from tests.each import each
from tests.oidc_issuer import REDIRECT, LocalIssuer, local_issuer
from tests.unit.gate_examples import ISSUER
from tests.unit.test_safe_http import INNER, INWARD, certified, resolve_to
from tests.unit.test_worker_runtime import NOWHERE
from worker import runtime

NAME = "sso.example"
PUBLIC = "8.8.8.8"
PRIVATE = "10.20.0.7"
INSIDE = OutboundRoute(private=(ip_network("10.20.0.0/16"), ip_network("fd12::/16")))
# fmt: off
NOT_PRIVATE = [
    "0.0.0.0/0", "127.0.0.0/8", "169.254.0.0/16", "169.254.169.254/32", "10.0.0.0/7", "8.8.8.0/24", "224.0.0.0/4",
    "::/0", "::1/128", "fe80::/10", "::ffff:10.0.0.0/104", "64:ff9b::/96", "2002:a00::/24", "2000::/3", "10.0.0.1/8",
]
# fmt: on


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS contexts: a server's with a certificate for the name alone, and a client's that trusts it."""
    return certified(tmp_path_factory.mktemp("tls"), NAME)


@pytest.fixture
def issuer(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[LocalIssuer]:
    with local_issuer(name=NAME, tls=tls[0]) as running:
        yield running


@pytest.fixture
def proxy(issuer: LocalIssuer) -> Iterator[ConnectProxy]:
    """A proxy that connects two public addresses to the issuer."""
    port = port_of(issuer)
    with serving(ConnectProxy({f"{PUBLIC}:{port}": port, f"[2001:4860::1]:{port}": port})) as running:
        yield running


def port_of(issuer: LocalIssuer) -> int:
    return urlsplit(issuer.url).port or 443


def by(proxy: ConnectProxy, **more: str) -> OutboundRoute:
    return OutboundRoute(proxy=OutboundProxy(HOST, proxy.port, **more))  # type: ignore[arg-type] # credentials alone


def test_the_outbound_proxy_is_given_the_checked_address_but_tls_verifies_the_host_name(
    monkeypatch: pytest.MonkeyPatch,
    issuer: LocalIssuer,
    proxy: ConnectProxy,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    asked = resolve_to(monkeypatch, [PUBLIC], ["10.0.0.1"])

    said = fetch(f"{issuer.url}/jwks", tls=tls[1], route=by(proxy))

    assert said.startswith(b'{"keys": [')
    assert proxy.targets == [f"{PUBLIC}:{port_of(issuer)}"]
    assert NAME not in proxy.asked[0]
    assert "authorization" not in proxy.asked[0].lower()
    assert issuer.heard[-1]["host"] == urlsplit(issuer.url).netloc
    assert asked.count(NAME) == 1


def test_an_ipv6_address_is_sent_to_the_outbound_proxy_in_brackets(
    monkeypatch: pytest.MonkeyPatch,
    issuer: LocalIssuer,
    proxy: ConnectProxy,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    resolve_to(monkeypatch, ["2001:4860::1"])

    assert fetch(f"{issuer.url}/jwks", tls=tls[1], route=by(proxy, credentials="Basic eDp5"))

    assert proxy.targets == [f"[2001:4860::1]:{port_of(issuer)}"]
    assert "Proxy-Authorization: Basic eDp5\r\n" in proxy.asked[0]


def test_behind_a_proxy_the_servers_certificate_is_verified_for_its_host_name(
    monkeypatch: pytest.MonkeyPatch, issuer: LocalIssuer, proxy: ConnectProxy
) -> None:
    resolve_to(monkeypatch, [PUBLIC])

    with pytest.raises(FetchFailed) as failed:
        fetch(f"{issuer.url}/jwks", route=by(proxy))

    assert failed.value.trouble is FetchFailure.CERTIFICATE


@pytest.mark.parametrize(("url", "allow_loopback", "addresses"), INWARD.values(), ids=INWARD)
def test_behind_a_proxy_internal_addresses_are_not_called(
    monkeypatch: pytest.MonkeyPatch, proxy: ConnectProxy, url: str, addresses: list[str], *, allow_loopback: bool
) -> None:
    resolve_to(monkeypatch, addresses)

    with pytest.raises(FetchFailed, match="not a public one"):
        fetch(url, allow_loopback=allow_loopback, route=by(proxy))

    assert proxy.asked == []


@each("host", ["2130706433", "0x7f000001", "0177.1", "127.1", "localhost", "[::1]", "[::ffff:7f00:1]"])
def test_behind_a_proxy_unusual_spellings_of_loopback_are_refused(proxy: ConnectProxy, host: str) -> None:
    with pytest.raises(FetchFailed):
        fetch(f"https://{host}/jwks", route=by(proxy))

    assert proxy.asked == []


def test_behind_a_proxy_redirects_are_not_followed(
    monkeypatch: pytest.MonkeyPatch,
    issuer: LocalIssuer,
    proxy: ConnectProxy,
    tls: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    resolve_to(monkeypatch, [PUBLIC])
    issuer.troubles["/jwks"] = REDIRECT

    with pytest.raises(FetchFailed, match="it answered 302"):
        fetch(f"{issuer.url}/jwks", tls=tls[1], route=by(proxy))

    assert len(proxy.asked) == 1


@each(
    ("says", "reason"),
    [
        (None, "the outbound proxy answered 403"),
        (b"HTTP/1.1 407 Who are you?\r\nX: secret\r\n\r\n", "the outbound proxy answered 407"),
        (b"secret\r\n\r\n", "the outbound proxy did not answer as one"),
        (b"HTTP/1.1 200 OK\r\n\r\nsecret", "the outbound proxy did not answer as one"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"secret" * 2000, "the outbound proxy did not answer as one"),
        (b"", "the outbound proxy did not answer as one"),
    ],
)
def test_an_invalid_outbound_proxy_is_named_by_its_setting_and_not_quoted(
    monkeypatch: pytest.MonkeyPatch, proxy: ConnectProxy, says: bytes | None, reason: str
) -> None:
    resolve_to(monkeypatch, ["9.9.9.9"])
    proxy.says = says

    with pytest.raises(FetchFailed, match=reason) as failed:
        fetch(f"https://{NAME}/jwks", route=by(proxy))

    assert failed.value.trouble is FetchFailure.CONNECTION
    assert "secret" not in str(failed.value)


def test_an_unreachable_outbound_proxy_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        resolve_to(monkeypatch, [PUBLIC])
        away = OutboundRoute(proxy=OutboundProxy(HOST, taken.getsockname()[1]))

        with pytest.raises(FetchFailed, match="the outbound proxy cannot be reached"):
            fetch(f"https://{NAME}/jwks", route=away)


@each("address", [PRIVATE, "fd12::7"])
def test_a_listed_private_network_is_called_without_the_proxy(
    monkeypatch: pytest.MonkeyPatch, proxy: ConnectProxy, address: str
) -> None:
    resolve_to(monkeypatch, [address])
    route = OutboundRoute(INSIDE.private, by(proxy).proxy)

    with pytest.raises(FetchFailed) as failed:
        fetch(f"https://{NAME}/jwks", seconds=0.3, route=route)

    assert failed.value.trouble is not FetchFailure.NOT_PUBLIC
    assert proxy.asked == []


@each("address", [*INNER, "fd12::7"])
def test_internal_addresses_outside_the_listed_networks_are_never_called(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    named = address in {"10.0.0.1", "fd12::7"}
    route = OutboundRoute(private=(ip_network("10.0.0.0/8"), ip_network("fc00::/7")))
    resolve_to(monkeypatch, [address])

    with pytest.raises(FetchFailed) as failed:
        fetch(f"https://{NAME}/jwks", seconds=0.3, route=route)
    with pytest.raises(FetchFailed, match="not a public one"):
        fetch(f"https://{NAME}/jwks", route=route.to_tenants)

    assert (failed.value.trouble is FetchFailure.NOT_PUBLIC) is not named


def test_plain_http_to_a_private_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, [PRIVATE])

    with pytest.raises(FetchFailed, match="not a public one"):
        fetch(f"http://{NAME}/jwks", allow_loopback=True, route=INSIDE)


@each(("tenant", "is_called"), [(None, True), ("contoso", False)])
def test_only_the_vendors_issuers_are_called_in_listed_private_networks(
    monkeypatch: pytest.MonkeyPatch, tenant: str | None, *, is_called: bool
) -> None:
    resolve_to(monkeypatch, [PRIVATE])
    issuer = LocalIssuer(f"https://{NAME}").configured(tenant=tenant)

    with pytest.raises(ProviderUnavailable) as away:
        IdentityProviders([issuer], seconds=0.3, route=INSIDE).metadata(issuer)

    assert (away.value.trouble is not FetchFailure.NOT_PUBLIC) is is_called


@each("is_vendors", [True, False])
def test_only_the_vendors_webhooks_are_called_in_listed_private_networks(
    monkeypatch: pytest.MonkeyPatch, *, is_vendors: bool
) -> None:
    resolve_to(monkeypatch, [PRIVATE])
    hooks = HttpWebhooks(seconds=0.3, route=INSIDE)

    with pytest.raises(SendFailed) as failed:
        asyncio.run(hooks.send(WebhookCall("1", f"https://{NAME}/", b"{}", ("whsec_" + "a" * 32,), is_vendors)))

    assert (failed.value.kind != FetchFailure.NOT_PUBLIC) is is_vendors


SECRET = new_secret()
HELPDESK = CaseSystem(title="Helpdesk", address="https://helpdesk.example/", adapter=f"https://{NAME}/")
HOOK = WebhookCall("1", f"https://{NAME}/", b"{}", (SECRET,), is_vendors=True)
VENDORS = LocalIssuer(f"https://{NAME}")


def asked(adapters: CaseAdapters, seconds: float) -> str:
    """Ask about a case; return the word for why there is no answer."""
    question = AdapterQuestion(new_id(), "contoso", "helpdesk", "CASE-7", new_id(), "erin@vendor.example", seconds)
    with pytest.raises(AdapterSilent) as silent:
        adapters.ask(question)
    return str(silent.value)


@each(("route", "seconds", "is_called"), [(INSIDE, 0.3, True), (OutboundRoute(), 2.9, False)])
def test_case_adapters_are_called_in_listed_private_networks_only(
    monkeypatch: pytest.MonkeyPatch, route: OutboundRoute, seconds: float, *, is_called: bool
) -> None:
    resolve_to(monkeypatch, [PRIVATE])

    trouble = asked(CaseAdapters({"helpdesk": HELPDESK}, SECRET, route=route), seconds)

    assert (trouble != FetchFailure.NOT_PUBLIC) is is_called


def call_by_sign_in(settings: Settings, _: Path) -> None:
    app = make_app(settings, make_database(settings))
    with pytest.raises(ProviderUnavailable):
        app.state.issuers.metadata(settings.issuers[0])


def call_by_gate(settings: Settings, _: Path) -> None:
    tokens = make_app(settings, make_database(settings)).state.gateway.engineers.tokens
    callers = callers_of(settings.catalogue)["mail"]
    realm = TokenRealm("mail", {one.provider.issuer: one for one in callers.issuers}, callers.is_gated)
    with pytest.raises(Busy):
        asyncio.run(tokens.verified(realm, VENDORS.token().encode()))


def call_by_notifications(settings: Settings, _: Path) -> None:
    senders = runtime.make(settings.model_copy(update={"notifications_database_url": SecretStr(NOWHERE)})).senders
    assert senders is not None
    with pytest.raises(SendFailed):
        asyncio.run(senders.hooks.send(HOOK))


def call_by_case_check(settings: Settings, _: Path) -> None:
    cases = runtime.make(settings.model_copy(update={"notifications_database_url": SecretStr(NOWHERE)})).cases
    assert cases is not None
    asked(cases, 2.9)


def call_by_connector(settings: Settings, folder: Path) -> None:
    (folder / "helpdesk").write_text(f"https://{NAME}/\n{SECRET}\n", encoding="utf-8")
    (folder / "helpdesk").chmod(0o600)
    changes = {"connectors_database_url": SecretStr(NOWHERE), "connector_targets": folder}
    driver = runtime.make(settings.model_copy(update=changes)).driver
    assert driver is not None
    with pytest.raises(ConnectorFailed, match="unreachable"):
        driver._connectors[ConnectorKind.WEBHOOK].close(new_id(), "helpdesk")  # noqa: SLF001 - it has no public name


@each("call", [call_by_sign_in, call_by_gate, call_by_notifications, call_by_case_check, call_by_connector])
def test_each_process_uses_the_proxy_and_private_networks_of_its_settings(
    monkeypatch: pytest.MonkeyPatch, proxy: ConnectProxy, tmp_path: Path, call: Callable[[Settings, Path], None]
) -> None:
    # Without the private network, the last address would forbid the call. It is checked, but only four are called.
    resolve_to(monkeypatch, [*[PUBLIC] * safe_http.MOST_ADDRESSES, PRIVATE])
    services = {"mail": Service(title="Mail", actions=("read",))}
    known: dict[str, Any] = {
        "plans": {"standard": Plan()},
        "issuers": (ISSUER,),
        "case_systems": {"helpdesk": HELPDESK},
    }
    chosen = Settings(
        environment="test",
        database_url=SecretStr(NOWHERE),
        redis_url=SecretStr("redis://127.0.0.1:1/0"),
        smtp_url=SecretStr("smtp://127.0.0.1:1"),
        catalogue=Catalogue(services=services, **known),
        issuers=(VENDORS.configured(),),
        case_adapter_secret=SecretStr(SECRET),
        private_networks=INSIDE.private,
        outbound_proxy=SecretStr(f"http://{HOST}:{proxy.port}"),
    )

    proxy.asked.clear()

    call(chosen, tmp_path)

    assert set(proxy.targets) == {f"{PUBLIC}:443"}


def test_a_vendor_webhook_may_have_an_address_in_a_listed_network() -> None:
    safe_http.check(f"https://{PRIVATE}/hook", route=INSIDE)

    with pytest.raises(FetchFailed):
        safe_http.check(f"https://{PRIVATE}/hook", route=INSIDE.to_tenants)
    with pytest.raises(FetchFailed):
        safe_http.check("https://10.21.0.7/hook", route=INSIDE)
    assert WebhookUrlPolicy.route.to_tenants == WebhookUrlPolicy.route


@each("network", NOT_PRIVATE)
def test_only_private_networks_can_be_listed(network: str) -> None:
    with pytest.raises(ValidationError):
        Settings(private_networks=(network,))


@each("url", ["proxy.example:3128", "http://proxy.example", "socks5://proxy.example:1080", "http://proxy:0",
              "http://proxy:99999", "http://proxy:1/path", "http://:3128", "http://s3cret@[proxy:1"])  # fmt: skip
def test_an_invalid_outbound_proxy_setting_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(outbound_proxy=SecretStr(url))

    assert "s3cret" not in str(refused.value)


def test_the_password_of_the_outbound_proxy_does_not_appear_in_printed_settings() -> None:
    settings = Settings(outbound_proxy=SecretStr("https://lockbox:p%40ss@proxy.example:3128"))

    assert settings.outbound.proxy == OutboundProxy("proxy.example", 3128, True, "Basic bG9ja2JveDpwQHNz")
    assert "bG9ja2JveDpwQHNz" not in repr(settings.outbound)
    assert "p%40ss" not in repr(settings)
