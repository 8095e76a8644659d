"""The page between editing a policy and saving it: the changes, and their effect on pending requests."""

from fastapi import Response

from api.portal.tenant.tenant_admin import TenantAdminPage
from lockbox.admin import what_if
from lockbox.notifications import policy_wording
from lockbox.requests.policy_rules import Policy


def page(at: TenantAdminPage, policy: Policy, seen: int) -> Response:
    """Return the page; a policy that could not be saved is refused here already.

    Args:
        at: the tenant's page, to an admin.
        policy: the new policy.
        seen: the version that it was made from.

    Raises:
        Invalid, NobodyCanApprove: it could not be in force.
    """
    found = what_if.preview_policy(at.session, at.caller, at.tenant.slug, policy)
    if found.refusal:
        raise found.refusal
    return at.page(
        "policy_preview",
        lines=list(policy_wording.lines(found.changes, found.names)),
        found=found,
        text=policy.model_dump_json(indent=2),
        version=seen,
        is_stale=seen != at.tenant.policy_version,
    )
