"""The page between writing a policy and saving it: what would change, and what that means for what waits."""

from fastapi import Response

from api.portal.tenant_admin import TenantAdminPage
from lockbox.admin import what_if
from lockbox.requests import policy_diff
from lockbox.requests.policy_rules import Policy


def page(at: TenantAdminPage, policy: Policy, seen: int) -> Response:
    """Return the page; what would not be saved is refused there already.

    Args:
        at: the tenant's page, to an admin.
        policy: what was written.
        seen: the version from which it was made.

    Raises:
        Invalid, NobodyCanApprove: it could not hold.
    """
    found = what_if.preview_policy(at.session, at.caller, at.tenant.slug, policy)
    if found.refusal:
        raise found.refusal
    return at.page(
        "policy_asks",
        lines=list(policy_diff.lines(found.changes, found.names)),
        found=found,
        text=policy.model_dump_json(indent=2),
        version=seen,
        is_stale=seen != at.tenant.policy_version,
    )
