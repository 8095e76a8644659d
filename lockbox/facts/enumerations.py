"""The words that facts of a request are stored in; pure."""

from enum import StrEnum


class Reason(StrEnum):
    """Why access is needed; Google's typed reasons in this field's words."""

    SUPPORT_CASE = "support_case"
    VENDOR_ALERT = "vendor_alert"
    VENDOR_REVIEW = "vendor_review"
    LEGAL_DEMAND = "legal_demand"
    OTHER = "other"


class Severity(StrEnum):
    """How severe a case is, from 1, the most severe, as support contracts count."""

    S1 = "S1"
    S2 = "S2"
    S3 = "S3"
    S4 = "S4"


class CaseCheck(StrEnum):
    """What its ticket system says of a case: it is open and the engineer's, or it could not be asked."""

    CONFIRMED = "confirmed"
    UNCONFIRMED = "unconfirmed"


class SignInKind(StrEnum):
    """How the requester had signed in: a browser session, a token of an identity provider, of ours, or of a terminal.

    `system` is a service account that acts for a person whose own sign-in is unknown.
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
    """Whose word an approval must be: the vendor's server's that the approver said so, or the approver's own.

    In the order of their letters, which is also that of their strictness.
    """

    ATTESTED = "attested"
    PASSKEY_SIGNED = "passkey-signed"


class State(StrEnum):
    """Where a request stands. The last six are final, and six different facts."""

    REVIEWING = "reviewing"
    PENDING = "pending"
    ACTIVE = "active"
    DENIED = "denied"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    COMPLETED = "completed"
    REVOKED = "revoked"
    EXPIRED = "expired"
