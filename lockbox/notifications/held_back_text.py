"""The wording of why an approved window lets nobody in, in mails, chats, on pages and in a terminal; pure.

Names in braces are filled in.
"""

WHY = {
    "tenant_suspended": "{tenant} is suspended by the vendor",
    "engineer_inactive": "{requester} is no longer an active engineer of the vendor",
    "extended_window_ended": "the window that it extends was ended",
    "approval_unverified": "its approval can no longer be verified",
    "stricter_policy": "{tenant} has made its policy stricter since the approval, and the request no longer meets it",
    "policy_unverified": "the policy of {tenant} can no longer be verified",
    "database_restored": "the database was restored from a back-up and is behind its own audit log",
}
NEXT = {
    "tenant_suspended": "Access opens if the suspension is lifted in time.",
    "engineer_inactive": "Access opens if {requester} becomes an active engineer again in time.",
    "extended_window_ended": "Further access needs a new request.",
    "approval_unverified": "Access needs a new request. Report this to the vendor's operators.",
    "stricter_policy": "Access needs a new request, under the policy in force now.",
    "policy_unverified": "Report this to the vendor's operators.",
    "database_restored": "An operator of the vendor has to finish the restore first.",
}
CUSTOMER, REQUESTER = "the customer", "the requester"
"""Where the names are not known."""
NOW = "Access is held back: nobody is let in, because {why}. {next}"
AHEAD = "As things stand, access will be held back: {why}."


def why(reason: str, *, tenant: str = CUSTOMER, requester: str = REQUESTER) -> str:
    """Return why nobody is let in, as a part of a sentence."""
    return WHY[reason].format(tenant=tenant, requester=requester)


def sentence(reason: str, *, tenant: str, requester: str = REQUESTER, is_ahead: bool = False) -> str:
    """Return why nobody is let in and what can be done, or before the window begins, why nobody will be."""
    because, then = why(reason, tenant=tenant, requester=requester), NEXT[reason].format(requester=requester)
    return AHEAD.format(why=because) if is_ahead else NOW.format(why=because, next=then)
