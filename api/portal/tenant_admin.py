"""Shared parts of a tenant's pages."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ValidationError

from api import deps
from api.browser import Visitor
from api.portal import phrases
from api.portal.pages import REFUSED, FormContext, go, origin, page, status_of
from lockbox import mistakes
from lockbox.admin import members, memberships, permissions
from lockbox.admin.memberships import Member
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import Invalid, LockboxError, SignInAgain
from lockbox.identity.models import Tenant
from lockbox.identity.roles import TENANT_ROLES, Caller, Role

AdminAction = Callable[[UnitOfWork, Caller, Origin], object]
Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class TenantAdminPage:
    request: Request
    session: UnitOfWork
    visitor: Visitor
    tenant: Tenant

    @property
    def caller(self) -> Caller:
        return self.visitor.caller

    @property
    def is_admin(self) -> bool:
        return self.caller.holds(Role.TENANT_ADMIN, tenant_id=self.tenant.id)

    @property
    def zone(self) -> str:
        return self.visitor.time_zone

    @property
    def services(self) -> Mapping[str, str]:
        return deps.settings(self.request).catalogue.titles

    def page(
        self,
        template: str,
        refused: LockboxError | None = None,
        status: int = 200,
        **said: Any,  # noqa: ANN401 - a template takes any variables
    ) -> HTMLResponse:
        return page(
            self.request,
            template,
            status_of(refused) if refused else status,
            visitor=self.visitor,
            tenant=self.tenant,
            root=f"/tenants/{self.tenant.slug}",
            is_admin=self.is_admin,
            zone=self.zone,
            at=now(self.session),
            services=self.services,
            refused=refused,
            needs_sign_in=isinstance(refused, SignInAgain),
            **said,
        )

    def members(self) -> list[Member]:
        found: list[Member] = []
        cursor: UUID | None = None
        while True:
            some = members.page(
                self.session, self.caller, self.tenant.slug, cursor=cursor, most=memberships.MOST_A_PAGE
            )
            found += some.members
            cursor = some.next_cursor
            if cursor is None:
                return sorted(found, key=lambda member: (member.name.casefold(), member.person_id))


def tenant_admin_page(
    request: Request, session: UnitOfWork, visitor: Visitor, slug: str, *roles: Role
) -> TenantAdminPage:
    tenant = permissions.readable(session, visitor.caller, slug, roles or tuple(TENANT_ROLES))
    return TenantAdminPage(request, session, visitor, tenant)


def done(
    work: FormContext,
    slug: str,
    deed: AdminAction,
    shown: Callable[[TenantAdminPage, LockboxError], Response],
    then: str,
    *,
    first: Callable[[Caller], None] | None = None,
) -> Response:
    """`first` runs in a transaction of its own, which is committed even if the action is refused."""
    try:
        if first:
            with work.open() as (session, visitor):
                tenant_admin_page(work.request, session, visitor, slug, Role.TENANT_ADMIN)
                who = visitor.caller
            first(who)
        with work.open() as (session, visitor):
            deed(session, visitor.caller, origin(work.request))
    except REFUSED as refused:
        with work.open() as (session, visitor):
            return shown(tenant_admin_page(work.request, session, visitor, slug), refused)
    return go(work.request, then)


def read(kind: type[Body], **fields: object) -> Body:
    """Raises Invalid: names each wrong field as its form does."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        why = "; ".join(
            f"{phrases.FORM_LABELS.get(str(where[0]), where[0])}: {what}" for where, what in mistakes.of(error)
        )
        raise Invalid(phrases.NOT_ACCEPTED.format(why=why)) from None
