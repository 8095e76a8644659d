"""The wording of where a requester works and how they had signed in, in mails, on pages and in a terminal; pure."""

from datetime import datetime

from lockbox.notifications.mail_text import duration

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


def located(entity: str | None, office: str | None, country: str | None) -> str:
    """Return who employs somebody and where they work and are, as in `Example GmbH, office in DE, located in PL`."""
    parts = [entity] if entity else []
    parts += [OFFICE.format(country=office)] if office else []
    parts += [LOCATED.format(country=country)] if country else []
    return ", ".join(parts) or NOT_KNOWN


def signed_in(sign_in: str | None, means: str | None, at: datetime | None, submitted_at: datetime) -> str:
    """Return how and when somebody had signed in when they submitted a request."""
    if means == "sample" and (sign_in == "token" or at is None):
        return OF_A_DEMO
    if sign_in not in THROUGH or at is None:
        return NO_SIGN_IN.get(sign_in or "", NOT_KNOWN)
    age = duration(max(int((submitted_at - at).total_seconds()), 0)) or JUST
    return SIGNED_IN.format(means=MEANS.get(means or "", NOT_KNOWN), through=THROUGH[sign_in], age=age)
