"""The portal: plain HTML pages that work without scripts, except for passkeys."""

from fastapi import APIRouter, FastAPI

from api.portal import (
    account,
    addresses,
    api_tokens,
    approver_keys,
    audit_log,
    delegates,
    device_login,
    gates,
    history,
    inbox,
    invitations,
    live,
    members,
    mode,
    new_request,
    observers,
    operations,
    pages,
    policy,
    preferences,
    presence,
    proposals,
    questions,
    request,
    request_lists,
    sign_in,
    sign_in_oidc,
    sign_in_passkey,
    static,
    tenants,
    tiers,
    verify_export,
    webhooks,
)


def include(router: APIRouter) -> None:
    """Add the pages to the routes."""
    for part in (
        sign_in,
        sign_in_passkey,
        sign_in_oidc,
        inbox,
        history,
        live,
        presence,
        questions,
        request,
        account,
        api_tokens,
        preferences,
        proposals,
        addresses,
        invitations,
        device_login,
        tenants,
        policy,
        new_request,
        request_lists,
        operations,
        mode,
        members,
        tiers,
        delegates,
        webhooks,
        observers,
        gates,
        approver_keys,
        audit_log,
        verify_export,
        static,
    ):
        router.include_router(part.router)
    router.include_router(gates.of_vendor)
    router.include_router(request.front)


def install(app: FastAPI) -> None:
    """Render refusals as pages if a page was requested."""
    pages.install(app)
