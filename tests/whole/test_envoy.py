"""The file for Envoy, which no package provides: Envoy's definitions accept it, and Lockbox answers Envoy's calls."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import ExtAuthz
from envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import HeaderMutation
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from google.protobuf.json_format import ParseDict

from devstack.embedded import ServerAddresses
from harness.gateway_world import SERVICE
from harness.wait import wait_for
from lockbox.identity.roles import Role, Scope
from lockbox.requests.lifecycle import Action
from tests.whole.entrances import PATIENCE, EntranceAnswer, Installation, address, ask, installed
from tests.whole.gateways import SAMPLES
from tests.whole.test_gateways import FORGED

ALWAYS = {"host", "content-length", "authorization"}
"""Headers that Envoy's HTTP service of ext_authz gets besides those of `allowed_headers`."""


@pytest.fixture(scope="module")
def home(template: ServerAddresses) -> Iterator[Installation]:
    with installed(template) as home:
        home.world.add("envoy", Role.SYSTEM, scopes={Scope("gate:envoy")}, services={SERVICE})
        yield home


@pytest.fixture(scope="module")
def manager() -> HttpConnectionManager:
    """The connection manager of the file, parsed by Envoy's definitions; an unknown field or filter is an error."""
    read: dict[str, Any] = yaml.safe_load((SAMPLES / "envoy.yaml").read_text())
    bootstrap = ParseDict(read, Bootstrap())
    found = HttpConnectionManager()
    assert bootstrap.static_resources.listeners[0].filter_chains[0].filters[0].typed_config.Unpack(found)
    return found


def gate_of(manager: HttpConnectionManager) -> ExtAuthz:
    found = ExtAuthz()
    assert manager.http_filters[1].typed_config.Unpack(found)
    return found


def test_the_envoy_file_first_strips_headers_then_asks_lockbox_and_then_serves_the_call(
    manager: HttpConnectionManager,
) -> None:
    kinds = [HeaderMutation, ExtAuthz, Router]

    assert all(one.typed_config.Is(kind.DESCRIPTOR) for one, kind in zip(manager.http_filters, kinds, strict=True))
    assert manager.normalize_path.value
    assert manager.merge_slashes
    assert manager.path_with_escaped_slashes_action == HttpConnectionManager.REJECT_REQUEST
    assert not manager.upgrade_configs


def test_the_envoy_file_refuses_when_lockbox_does_not_answer(manager: HttpConnectionManager) -> None:
    gate = gate_of(manager)

    assert not gate.failure_mode_allow
    assert gate.http_service.server_uri.timeout.seconds == 2
    assert not gate.HasField("with_request_body")
    assert 0 < manager.common_http_protocol_options.max_stream_duration.seconds <= 300
    assert 0 < manager.route_config.virtual_hosts[0].routes[0].route.timeout.seconds <= 300


def test_the_envoy_file_strips_forgeable_headers(manager: HttpConnectionManager) -> None:
    strip = HeaderMutation()
    assert manager.http_filters[0].typed_config.Unpack(strip)
    mutations = strip.mutations.request_mutations
    exact = {mutation.remove for mutation in mutations if mutation.remove}
    prefixes = tuple(
        mutation.remove_on_match.key_matcher.prefix for mutation in mutations if mutation.HasField("remove_on_match")
    )

    for name, _ in FORGED:
        is_own = name in {"Connection", "X-Forwarded-For"}  # Envoy removes and writes them itself
        small = name.lower()
        assert is_own or "_" in small or small in exact or small.startswith(prefixes), name


def asked(
    home: Installation, gate: ExtAuthz, target: str, *more: tuple[str, str], method: str = "GET"
) -> EntranceAnswer:
    """Check a call as Envoy does: send it with the prefix before its path and only the headers that may pass."""
    allowed = ALWAYS | {pattern.exact for pattern in gate.allowed_headers.patterns}
    client = [
        ("Host", f"{home.world.tenant.slug}.mail.example"),
        ("Authorization", f"Bearer {home.token()}"),
        ("Content-Length", "0"),
        *more,
    ]
    headers = [(name, value) for name, value in client if name.lower() in allowed]
    added = {one.key: one.value for one in gate.http_service.authorization_request.headers_to_add}
    own = {"x-envoy-internal": "true", "x-forwarded-for": "127.0.0.1", "x-envoy-expected-rq-timeout-ms": "2000"}
    headers += (added | own | {"lockbox-gateway": home.world.tokens["envoy"]}).items()
    assert "lockbox-gateway" in added
    return ask(home.api, f"{method} {gate.http_service.path_prefix}{target} HTTP/1.1", headers)


@pytest.mark.far
def test_lockbox_answers_the_questions_of_envoy(home: Installation, manager: HttpConnectionManager) -> None:
    gate, mailbox = gate_of(manager), address()
    request = home.world.submit(resources=[f"mailbox:{mailbox}"])
    assert asked(home, gate, f"/mailboxes/{mailbox}").headers["lockbox-reason"] == "no_window"
    home.world.act("ann", Action.APPROVE, request.id)
    wait_for("the gate answers so", lambda: asked(home, gate, f"/mailboxes/{mailbox}").status == 200, PATIENCE)

    served = asked(home, gate, f"/mailboxes/{mailbox}?trace=1")

    told = {pattern.exact for pattern in gate.http_service.authorization_response.allowed_upstream_headers.patterns}
    assert told - {"lockbox-break-glass"} <= served.headers.keys()
    assert served.headers["lockbox-request"] == str(request.id)
    for target, method, reason in (
        (f"/mailboxes/{mailbox}", "POST", "unmapped"),
        (f"/mailboxes/{address()}", "GET", "no_window"),
        (f"/mailboxes/{mailbox}?trace=1&trace=2", "GET", "malformed"),
        (f"/mailboxes/{mailbox}%2F", "GET", "malformed"),
        (f"//mailboxes/{mailbox}", "GET", "malformed"),
        (f"/mailboxes/../mailboxes/{mailbox}", "GET", "malformed"),
        (f"/mailboxes/{mailbox};a", "GET", "malformed"),
        ("", "GET", "malformed"),
    ):
        answer = asked(home, gate, target, method=method)
        assert (answer.status, answer.headers["lockbox-reason"]) == (403, reason), target
    of_grpc = asked(home, gate, f"/mailboxes/{mailbox}", ("Content-Type", "application/grpc"))
    assert (of_grpc.status, of_grpc.headers["lockbox-reason"]) == (403, "unmapped")


@pytest.mark.far
def test_forged_calls_that_envoy_would_pass_on_are_refused(
    home: Installation, manager: HttpConnectionManager
) -> None:
    gate, mailbox = gate_of(manager), address()

    for header in (
        ("X-Original-URI", "/"),
        ("X-Forwarded-Uri", "/"),
        ("X-Envoy-Original-Path", "/"),
        ("Accept", "*/*"),
    ):
        answer = asked(home, gate, f"/mailboxes/{mailbox}", header)
        assert (answer.status, answer.headers["lockbox-reason"]) == (403, "no_window")
