"""The portal: HTML pages that work without scripts, except for passkeys."""

from fastapi import FastAPI

from api.portal import live, pages, reference, static
from api.portal.account import device_login, profile, welcome
from api.portal.audit import approver_keys, audit_log, verify_export
from api.portal.requests import (
    history,
    inbox,
    new_request,
    questions,
    request,
    request_lists,
    selection,
)
from api.portal.sign_in import oidc, passkey, sign_in
from api.portal.tenant import (
    access_review,
    delegates,
    exclusions,
    gates,
    invitations,
    members,
    mode,
    observers,
    policy,
    pre_approvals,
    statistics,
    tenant_data,
    tenants,
    tiers,
    unapproved_access,
    webhooks,
)
from api.portal.vendor import operations, vendor_data

ROUTERS = (
    sign_in.router,
    passkey.router,
    oidc.router,
    inbox.router,
    history.router,
    live.router,
    questions.router,
    request.router,
    profile.router,
    members.proposals,
    invitations.router,
    welcome.router,
    device_login.router,
    tenants.router,
    policy.router,
    new_request.router,
    request_lists.router,
    selection.router,
    operations.router,
    mode.router,
    members.router,
    tiers.router,
    delegates.router,
    pre_approvals.router,
    webhooks.router,
    observers.router,
    gates.router,
    exclusions.router,
    tenant_data.router,
    access_review.router,
    unapproved_access.router,
    approver_keys.router,
    audit_log.router,
    verify_export.router,
    statistics.router,
    reference.router,
    static.router,
    gates.of_vendor,
    exclusions.of_vendor,
    vendor_data.router,
    access_review.of_vendor,
    request.front,
)
"""The routes of the pages, in the order in which they are matched."""


def install(app: FastAPI) -> None:
    pages.install(app)
