"""The catalogue of an installation: plans, and services for which engineers request access."""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from catalogue.connector_document import ServiceConnector, connector_problems
from catalogue.context_schema import ContextSchema
from catalogue.gate_checks import gate_problems
from catalogue.gate_document import MOST_IN_A_LIST, CataloguePart, ServiceGate, TokenIssuer
from catalogue.source import CatalogueProblem

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
MOST_ACTIONS = 50
MOST_SERVICES = 500
MOST_PLANS = 100
MOST_CASE_SYSTEMS = 20
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("write a name of small letters, digits, - and _ only, at most 63, such as exchange-online")
    return name


def _check_title(title: str) -> str:
    if title != title.strip() or not title.isprintable():
        raise ValueError("write a title on one line, without blanks around it")
    return title


CatalogueName = Annotated[str, AfterValidator(_check_name)]
Title = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_check_title)]


class InconsistentCatalogue(ValueError):  # noqa: N818 - the name says what went wrong
    def __init__(self, problems: Iterable[CatalogueProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.message for problem in self.problems))


class Level(StrEnum):
    """How far an action goes: `read`, `change`, `export` or `admin`, each further than the one before."""

    READ = "read"
    CHANGE = "change"
    EXPORT = "export"
    ADMIN = "admin"


LEVELS = tuple(Level)


class Service(CataloguePart):
    """An action without a level gets the level of the same name, or else `admin`.

    Once read, `levels` has every action.
    """

    title: Title
    actions: tuple[CatalogueName, ...] = Field(
        default=("read", "change", "export"), min_length=1, max_length=MOST_ACTIONS
    )
    levels: dict[CatalogueName, Annotated[Level, Field(strict=False)]] = Field(default_factory=dict)
    context: ContextSchema | None = None
    gate: ServiceGate | None = None
    connector: ServiceConnector | None = None

    @model_validator(mode="after")
    def _each_has_a_level(self) -> Self:
        named = {action: Level(action) if action in LEVELS else Level.ADMIN for action in self.actions}
        object.__setattr__(self, "levels", named | self.levels)
        return self


class Plan(CataloguePart):
    """`lockbox` allows the mode `enforce`."""

    lockbox: bool = True


def _check_address(address: str) -> str:
    try:
        parts = urlsplit(address)
        is_one = parts.scheme == "https" and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or not address.endswith("/") or parts.query or parts.fragment:
        raise ValueError("write the https address that the pages of cases begin with, such as https://desk.example/")
    return address


def _check_adapter(address: str) -> str:
    try:
        parts = urlsplit(address)
        is_one = parts.scheme in {"https", "http"} and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        is_one = False
    if not is_one or parts.fragment or (parts.scheme == "http" and parts.hostname not in LOOPBACK):
        raise ValueError("write the https address of the adapter, such as https://desk-adapter.example/lockbox")
    return address


class CaseSystem(CataloguePart):
    """`address` is the URL prefix of the system's cases; Lockbox asks the adapter about cases."""

    title: Title
    address: Annotated[str, Field(max_length=500), AfterValidator(_check_address)]
    adapter: Annotated[str, Field(max_length=500), AfterValidator(_check_adapter)] | None = None


class Catalogue(CataloguePart):
    services: dict[CatalogueName, Service] = Field(min_length=1, max_length=MOST_SERVICES)
    plans: dict[CatalogueName, Plan] = Field(min_length=1, max_length=MOST_PLANS)
    case_systems: dict[CatalogueName, CaseSystem] = Field(default={}, max_length=MOST_CASE_SYSTEMS)
    issuers: tuple[TokenIssuer, ...] = Field(default=(), max_length=MOST_IN_A_LIST)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if problems := list(self._problems()):
            raise InconsistentCatalogue(problems)
        return self

    @property
    def titles(self) -> Mapping[str, str]:
        return {name: service.title for name, service in self.services.items()}

    @property
    def is_plain_http(self) -> bool:
        """Whether an issuer, its keys or an adapter has a URL without TLS, which production refuses."""
        adapters = [system.adapter for system in self.case_systems.values() if system.adapter]
        urls = [url for issuer in self.issuers for url in (issuer.issuer, issuer.jwks_url)]
        return any(url.startswith("http:") for url in (*urls, *adapters))

    def _problems(self) -> Iterable[CatalogueProblem]:
        issuers = [issuer.issuer for issuer in self.issuers]
        for number, issuer in enumerate(issuers):
            if issuer in issuers[:number]:
                yield CatalogueProblem(("issuers", number, "issuer"), "name each issuer once")
        for name, service in self.services.items():
            for number, action in enumerate(service.actions):
                if action in service.actions[:number]:
                    yield CatalogueProblem(("services", name, "actions", number), "name each action once")
            for action in service.levels:
                if action not in service.actions:
                    yield CatalogueProblem(("services", name, "levels", action), "name one of the service's actions")
            if service.gate is not None:
                yield from gate_problems(service.gate, ("services", name, "gate"), service.actions, issuers)
            if service.connector is not None:
                yield from connector_problems(service.connector, ("services", name, "connector"), service.actions)
