"""The pages of the lockbox: plain HTML that works without script, but for passkeys."""

from fastapi import APIRouter, FastAPI

from api.portal import (
    account,
    addresses,
    approver_keys,
    asking,
    at_hand,
    by_issuer,
    by_passkey,
    deputies,
    endpoints,
    history,
    invitations,
    live,
    looks,
    members,
    mine,
    mode,
    operations,
    own_tokens,
    pages,
    policy,
    preferences,
    proposals,
    questions,
    requests,
    review,
    sign_in,
    static,
    tenants,
    terminal,
    tiers,
    trail,
    verifying,
    watchers,
)


def include(router: APIRouter) -> None:
    """Add the pages to the routes."""
    for part in (
        sign_in,
        by_passkey,
        by_issuer,
        at_hand,
        history,
        live,
        looks,
        questions,
        requests,
        account,
        own_tokens,
        preferences,
        proposals,
        addresses,
        invitations,
        terminal,
        tenants,
        policy,
        asking,
        mine,
        review,
        operations,
        mode,
        members,
        tiers,
        deputies,
        endpoints,
        watchers,
        approver_keys,
        trail,
        verifying,
        static,
    ):
        router.include_router(part.router)
    router.include_router(requests.front)


def install(app: FastAPI) -> None:
    """Let an app whose refusals are mapped already answer with pages where a page was asked for."""
    pages.install(app)
