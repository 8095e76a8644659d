"""The wording about requests that mails, chats, pages and the terminal share; pure.

Names in braces are placeholders.
"""

from datetime import datetime

from lockbox.notifications.mail_text import duration

HELD_BACK_REASONS = {
    "tenant_suspended": "{tenant} is suspended by the vendor",
    "engineer_inactive": "{requester} is no longer an active engineer of the vendor",
    "extended_window_ended": "the window that it extends was ended",
    "approval_unverified": "its approval can no longer be verified",
    "stricter_policy": "{tenant} has made its policy stricter since the approval, and the request no longer meets it",
    "policy_unverified": "the policy of {tenant} can no longer be verified",
    "database_restored": "the database was restored from a back-up and is behind its own audit log",
}
HELD_BACK_REMEDIES = {
    "tenant_suspended": "Access opens if the suspension is lifted in time.",
    "engineer_inactive": "Access opens if {requester} becomes an active engineer again in time.",
    "extended_window_ended": "Further access needs a new request.",
    "approval_unverified": "Access needs a new request. Report this to the vendor's operators.",
    "stricter_policy": "Access needs a new request, under the policy in force now.",
    "policy_unverified": "Report this to the vendor's operators.",
    "database_restored": "An operator of the vendor has to finish the restore first.",
}
CUSTOMER, REQUESTER = "the customer", "the requester"
"""The words for people whose names are not known."""
HELD_BACK = "Access is held back: nobody is let in, because {why}. {next}"
WILL_BE_HELD_BACK = "As things stand, access will be held back: {why}."
NOT_KNOWN = "not known"
AS_OF = "{said}, by the vendor's directory as of {time}"
OFFICE, LOCATED = "office in {country}", "located in {country}"
OF_A_DEMO = "a demo token, without a sign-in"
NO_SIGN_IN = {
    "token": "an API token, without a sign-in",
    "system": "submitted by a service account; how the engineer had signed in is not known",
}
MEANS = {
    "oidc": "with an identity provider",
    "passkey": "with a passkey",
    "mail": "with a code from a mail",
    "sample": "as a demo user",
}
THROUGH = {"session": "in a browser", "provider_token": "by its token", "device_login": "in a terminal"}
SIGNED_IN = "{means} {through}, {age} before submitting"
JUST = "less than a second"


def held_back_because(reason: str, *, tenant: str = CUSTOMER, requester: str = REQUESTER) -> str:
    return HELD_BACK_REASONS[reason].format(tenant=tenant, requester=requester)


def held_back(reason: str, *, tenant: str, requester: str = REQUESTER, is_ahead: bool = False) -> str:
    """Return why an approved window admits no one, and the remedy.

    `is_ahead` is whether the window has not begun yet.
    """
    because, then = (
        held_back_because(reason, tenant=tenant, requester=requester),
        HELD_BACK_REMEDIES[reason].format(requester=requester),
    )
    return WILL_BE_HELD_BACK.format(why=because) if is_ahead else HELD_BACK.format(why=because, next=then)


def located(entity: str | None, office: str | None, country: str | None) -> str:
    """Such as `Example GmbH, office in DE, located in PL`."""
    parts = [entity] if entity else []
    parts += [OFFICE.format(country=office)] if office else []
    parts += [LOCATED.format(country=country)] if country else []
    return ", ".join(parts) or NOT_KNOWN


def signed_in(sign_in: str | None, means: str | None, at: datetime | None, submitted_at: datetime) -> str:
    if means == "sample" and (sign_in == "token" or at is None):
        return OF_A_DEMO
    if sign_in not in THROUGH or at is None:
        return NO_SIGN_IN.get(sign_in or "", NOT_KNOWN)
    age = duration(max(int((submitted_at - at).total_seconds()), 0)) or JUST
    return SIGNED_IN.format(means=MEANS.get(means or "", NOT_KNOWN), through=THROUGH[sign_in], age=age)
