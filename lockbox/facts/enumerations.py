"""The words that facts of a request are stored in; pure."""

from enum import StrEnum


class Reason(StrEnum):
    """Why access is needed; the values follow Google's typed reasons for access."""

    SUPPORT_CASE = "support_case"
    VENDOR_ALERT = "vendor_alert"
    VENDOR_REVIEW = "vendor_review"
    LEGAL_DEMAND = "legal_demand"
    OTHER = "other"


class Severity(StrEnum):
    """How severe a case is; as in support contracts, 1 is the most severe."""

    S1 = "S1"
    S2 = "S2"
    S3 = "S3"
    S4 = "S4"


class CaseCheck(StrEnum):
    """Whether the ticket system confirmed the case (open, assigned to the engineer), or could not be asked."""

    CONFIRMED = "confirmed"
    UNCONFIRMED = "unconfirmed"


class SignInKind(StrEnum):
    """How the requester had signed in.

    `session` is a browser session, `provider_token` a token of an identity provider, `token` an API token of Lockbox,
    and `device_login` a token that a terminal got by a device login. `system` is a service account that acts for a
    person whose own sign-in is unknown.
    """

    SESSION = "session"
    PROVIDER_TOKEN = "provider_token"  # noqa: S105 - a word
    TOKEN = "token"  # noqa: S105 - a word
    DEVICE_LOGIN = "device_login"
    SYSTEM = "system"


class AuthMethod(StrEnum):
    """How a person signed in.

    `token` is an API token, `sample` a demo token, which counts as a fresh sign-in and is refused in production;
    `mail` is a mailed one-time code alone.
    """

    TOKEN = "token"  # noqa: S105 - a word
    SAMPLE = "sample"
    OIDC = "oidc"
    PASSKEY = "passkey"
    MAIL = "mail"


class Mode(StrEnum):
    """How a tenant uses the lockbox: it decides, it is notified, or neither."""

    ENFORCE = "enforce"
    OBSERVE = "observe"
    OFF = "off"


class ApproveMeans(StrEnum):
    """What must prove an approval: the word of the vendor's server (`attested`), or the approver's own signature.

    The values' alphabetical order is also their order of strictness.
    """

    ATTESTED = "attested"
    PASSKEY_SIGNED = "passkey-signed"


class State(StrEnum):
    """The state of a request; the last six states are final."""

    REVIEWING = "reviewing"
    PENDING = "pending"
    ACTIVE = "active"
    DENIED = "denied"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    COMPLETED = "completed"
    REVOKED = "revoked"
    EXPIRED = "expired"
