"""A gated service to whose mapping tests send requests, and open windows for the gate's memory."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

from catalogue.gate_document import PathRule, ServiceGate, TenantSource, TokenIssuer
from catalogue.service_catalogue import Catalogue, Plan, Service
from gate.mapping import GateCall, MappedCall, MappingRefused, ServiceMapping
from lockbox.requests.models import AccessRequest, RequestEntry

HOST = "contoso.mail.example"
ACTIONS = ("read", "change", "export")
ISSUER = TokenIssuer(issuer="https://sso.example", audience="gate", jwks_url="https://sso.example/keys")


def rule(path: str, resource: str, action: str = "read", methods: str = "GET", **query: str) -> PathRule:
    """Return a path rule."""
    given: Any = tuple(methods.split())
    return PathRule(methods=given, path=path, resource=resource, action=action, query=query)


RULES = (
    rule("/", "directory:all"),
    rule("/mailboxes/{address}", "mailbox:{address}"),
    rule("/mailboxes/{address}", "mailbox:{address}", "change", "PUT DELETE"),
    rule("/mailboxes/{address}/messages/{}", "mailbox:{address}", part="headers"),
    rule("/mailboxes/{address}/messages/{}", "mailbox:{address}", "export", part="all"),
    rule("/mailboxes/{address}/batch", "mailbox:{address}", "{verb}", "POST", do="{verb}"),
    rule("/sites/{site}/files/{file}/", "file:{site}/{file}"),
    rule("/search", "mailbox:{address}", mailbox="{address}"),
)


def mapping(
    *rules: PathRule, tenant: TenantSource | None = None, escaped: str = "", ignored: tuple[str, ...] = ("trace",)
) -> ServiceMapping:
    """Return the mapping of a service, which a catalogue has checked."""
    gate = ServiceGate(
        tenant=tenant or TenantSource(host="{tenant}.mail.example"),
        escaped=escaped,
        ignored_query=ignored,
        paths=rules or RULES,
    )
    service = Service(title="Mail", actions=ACTIONS, gate=gate)
    Catalogue(services={"mail": service}, plans={"standard": Plan()}, issuers=(ISSUER,))
    return ServiceMapping("mail", service)


def mapped(made: ServiceMapping, target: str, method: str = "GET", **parts: Any) -> tuple[str, str, str]:
    found = made.map(GateCall(method, target, **({"host": HOST} | parts)))
    assert isinstance(found, MappedCall)
    assert found.service == "mail"
    return found.tenant_slug, found.resource, found.action


def refused(made: ServiceMapping, target: str, method: str = "GET", **parts: Any) -> tuple[str, str]:
    try:
        found = made.map(GateCall(method, target, **({"host": HOST} | parts)))
    except MappingRefused as refusal:
        return refusal.code, refusal.reason
    raise AssertionError(f"{target!a} was mapped to {found}")


def open_window(number: int, service: str) -> RequestEntry:
    """Return one of many open windows, like a row that was read; its tenant is in no database."""
    request = SimpleNamespace(
        id=UUID(int=(7 << 76) + number),
        tenant_id=UUID(int=1),
        requester_id=UUID(int=2),
        service=service,
        open_resources=[f"file:{number}"],
        open_actions=["read"],
        deadline_at=datetime(2100, 1, 1, tzinfo=UTC),
        uses_left=None,
        break_glass=False,
        opens_at=None,
        extends=None,
    )
    return RequestEntry(cast("AccessRequest", request), "fabrikam", "Erin", open=True)
