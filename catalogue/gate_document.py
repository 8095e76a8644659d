"""A service's gate in the catalogue. Pure."""

import re
from collections.abc import Callable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from catalogue.gate_templates import parse_host, parse_path, parse_resource, parse_value
from catalogue.issuers import Algorithm, Party, check_url

SLUG = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
PARAMETER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
VARIABLE_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
OTHERS = (
    "authorization",
    "connection",
    "content-",
    "cookie",
    "forwarded",
    "host",
    "transfer-",
    "x-forwarded-",
    "x-original-",
)
"""The beginnings of headers that clients, proxies or the gateway's own dialect write."""
OF_THE_GATE = frozenset({"lockbox-gateway", "lockbox-call"})
"""The gateway's credential and its id of a call: neither names a tenant or a caller."""
IN_BODIES = frozenset({"graphql", "graphiql", "gql", "jsonrpc", "json-rpc", "xmlrpc", "xml-rpc", "soap", "$batch"})
"""Segments (up to a dot) that are typical of interfaces whose calls name in their bodies what they read and do."""
GRPC_SERVICE = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]*\.)+[A-Z][A-Za-z0-9_]*")
"""A segment that names a service as gRPC does, such as `mail.v1.Mailboxes`. The next segment is the method."""
MOST_PATHS = 500
MOST_IN_A_LIST = 50
ESCAPABLE = "!$&'()+,:=@"
DAY = 86_400


def _by(check: Callable[[str], object]) -> AfterValidator:
    def checked(value: str) -> str:
        check(value)
        return value

    return AfterValidator(checked)


def _fits(form: re.Pattern[str], said: str) -> AfterValidator:
    def check(value: str) -> None:
        if not form.fullmatch(value):
            raise ValueError(said)

    return _by(check)


def _check_header(name: str) -> None:
    if not HEADER.fullmatch(name):
        raise ValueError("write a header's name of letters, digits and -, such as Lockbox-Tenant")
    if name.lower().startswith(OTHERS) or name.lower() in OF_THE_GATE:
        raise ValueError("name a header that only your gateway sets, such as Lockbox-Tenant")


def _check_escapes(marks: str) -> None:
    if set(marks) - set(ESCAPABLE) or len(set(marks)) < len(marks):
        raise ValueError(f"list characters of {ESCAPABLE} , each once")


def _check_is_told_by_path(template: str) -> None:
    literals = [segment.literal or "" for segment in parse_path(template)]
    named = next((literal for literal in literals if literal.lower().partition(".")[0] in IN_BODIES), None)
    named = named or next((literal for literal in literals[-2:-1] if GRPC_SERVICE.fullmatch(literal)), None)
    if named is not None:
        raise ValueError(
            f"leave out paths with {named}: what is read there stands in the call's body, which no gate reads; check "
            "access in the service's code with lockbox-guard"
        )


Short = Field(min_length=1, max_length=200)
TenantSlug = Annotated[str, _fits(SLUG, "write a tenant's slug: small letters, digits and -")]
HostTemplate = Annotated[str, Short, _by(parse_host)]
HeaderName = Annotated[str, _by(_check_header)]
VariableName = Annotated[str, _fits(VARIABLE_NAME, "write a variable's name without braces, such as org")]
PathTemplate = Annotated[str, Short, _by(parse_path), _by(_check_is_told_by_path)]
ResourceTemplate = Annotated[str, Short, _by(parse_resource)]
ValueTemplate = Annotated[str, Short, _by(parse_value)]
ParameterName = Annotated[str, _fits(PARAMETER, "write a parameter's name of letters, digits, . _ and -")]
Url = Annotated[str, _by(check_url)]
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


class CataloguePart(BaseModel):
    """Unknown fields are refused, and no text is converted to a number or a boolean."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class TenantSource(CataloguePart):
    """Where the tenant of a call is read: exactly one of the fields is set.

    `host` is a template of the request's host, `path` a variable that every path has, and `header` a header that the
    gateway sets itself and accepts from no client.
    """

    fixed: TenantSlug | None = None
    host: HostTemplate | None = None
    path: VariableName | None = None
    header: HeaderName | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(value is not None for value in (self.fixed, self.host, self.path, self.header)) != 1:
            raise ValueError("write exactly one of fixed, host, path and header")
        return self


class GateCallers(CataloguePart):
    """Which calls are gated: all calls at a support entrance, or else calls whose token has this claim.

    A support entrance is a separate address for support. There the gateway may identify the caller: by the subject of
    a verified client certificate in `subject_header`, or by a name in `engineer_header`.
    """

    entrance: Literal["support"] | None = None
    issuer: Url | None = None
    claim: Annotated[str, Short] | None = None
    value: Annotated[str, Short] | None = None
    subject_header: HeaderName | None = None
    engineer_header: HeaderName | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        claimed = (self.issuer, self.claim, self.value)
        if (self.entrance is None and None in claimed) or (self.entrance and claimed != (None, None, None)):
            raise ValueError("write either entrance: support, or issuer, claim and value together")
        if self.entrance is None and self.headers:
            raise ValueError("leave the headers out: only at a support entrance does the gateway say who calls")
        return self

    @property
    def headers(self) -> tuple[str, ...]:
        return tuple(name.lower() for name in (self.subject_header, self.engineer_header) if name is not None)


class PathRule(CataloguePart):
    methods: tuple[Method, ...] = Field(min_length=1, max_length=7)
    path: PathTemplate
    resource: ResourceTemplate
    action: ValueTemplate
    query: dict[ParameterName, ValueTemplate] = Field(default={}, max_length=MOST_IN_A_LIST)


class ServiceGate(CataloguePart):
    """`escaped` are characters that clients percent-encode without need.

    `ignored_query` names parameters that affect neither the data that is read nor the action.
    """

    tenant: TenantSource
    enforcement: Literal["report", "enforce"] = "enforce"
    callers: GateCallers = GateCallers(entrance="support")
    escaped: Annotated[str, _by(_check_escapes)] = ""
    ignored_query: tuple[ParameterName, ...] = Field(default=(), max_length=MOST_IN_A_LIST)
    paths: tuple[PathRule, ...] = Field(min_length=1, max_length=MOST_PATHS)


class TokenIssuer(CataloguePart):
    """An issuer whose tokens identify engineers at the gate.

    A token's `iss` is `issuer`, its `aud` contains `audience`, and its client is in `azp` unless `azp` is empty.
    `longest_token` bounds `exp` - `iat` in seconds.
    """

    issuer: Url
    audience: Annotated[str, Short]
    azp: tuple[Party, ...] = Field(default=(), max_length=MOST_IN_A_LIST)
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "ES256", "EdDSA", "Ed25519"), min_length=1)
    jwks_url: Url
    mail_is_authoritative: bool = False
    longest_token: int = Field(default=3600, ge=60, le=DAY)
