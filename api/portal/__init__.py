"""The pages of the lockbox: plain HTML that works without script, but for passkeys."""

from fastapi import FastAPI

from api.portal import (
    account,
    addresses,
    by_issuer,
    by_passkey,
    invitations,
    own_tokens,
    pages,
    policy,
    preferences,
    proposals,
    requests,
    sign_in,
    static,
    tenants,
    terminal,
)


def install(app: FastAPI) -> None:
    """Add the pages to an app whose refusals are mapped already."""
    for part in (
        sign_in,
        by_passkey,
        by_issuer,
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
        static,
    ):
        app.include_router(part.router)
    app.include_router(requests.front)
    pages.install(app)
