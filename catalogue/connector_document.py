"""A service's connector in the catalogue. Pure."""

import re
from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from catalogue.gate_document import CataloguePart, TenantSlug
from catalogue.source import CatalogueProblem, Place

TENANT = "{tenant}"
TARGET = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}")
MOST_ROLES = 20


def _check_target(target: str) -> str:
    if not TARGET.fullmatch(target.replace(TENANT, "x")) or target.count(TENANT) > 1:
        raise ValueError("write a target's name of small letters, digits, . _ and -, with {tenant} at most once")
    return target


def _check_role(role: str) -> str:
    if not ROLE.fullmatch(role) or role.startswith(("pg_", "lbx_")):
        raise ValueError("name a role that the target's administrator made for this: letters, digits and _, no pg_")
    return role


TargetTemplate = Annotated[str, Field(max_length=63), AfterValidator(_check_target)]
RoleName = Annotated[str, AfterValidator(_check_role)]
Roles = Annotated[tuple[RoleName, ...], Field(min_length=1, max_length=MOST_ROLES)]


class ServiceConnector(CataloguePart):
    """`target` names a file of the connector worker.

    If `target` contains no `{tenant}`, only the tenant named by `tenant` has this target. A Postgres connector opens
    windows that name `resource`, with the database roles that `actions` list, and shows `address` to engineers. A
    webhook receives everything that the window covers.
    """

    kind: Literal["postgres", "webhook"]
    target: TargetTemplate
    tenant: TenantSlug | None = None
    resource: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    actions: dict[str, Roles] = Field(default={})
    address: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    connections: int = Field(default=3, ge=1, le=20)

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if (TENANT in self.target) == (self.tenant is not None):
            raise ValueError("write either {tenant} in `target`, or the one `tenant` whose target it is")
        if self.kind == "postgres" and (self.resource is None or not self.actions):
            raise ValueError("a postgres connector needs `resource` and `actions`")
        if self.kind == "webhook" and (self.resource, self.actions, self.address) != (None, {}, None):
            raise ValueError("a webhook connector takes kind, target and tenant alone")
        return self

    def target_of(self, tenant: str) -> str | None:
        if self.tenant is not None:
            return self.target if self.tenant == tenant else None
        named = self.target.replace(TENANT, tenant)
        return named if TARGET.fullmatch(named) else None


def connector_problems(
    connector: ServiceConnector, place: Place, actions: tuple[str, ...]
) -> Iterator[CatalogueProblem]:
    for action in connector.actions:
        if action not in actions:
            said = f"name one of the service's actions: {', '.join(actions)}"
            yield CatalogueProblem((*place, "actions", action), said)
