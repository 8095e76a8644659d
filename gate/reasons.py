"""Why the gate says no, as a word for gateways and a sentence for people."""

from enum import StrEnum


class GateReason(StrEnum):
    """The value of the header `Lockbox-Reason`."""

    NO_WINDOW = "no_window"
    NARROWED = "narrowed"
    USED_UP = "used_up"
    SUSPENDED = "suspended"
    UNKNOWN_ENGINEER = "unknown_engineer"
    UNMAPPED = "unmapped"
    MALFORMED = "malformed"
    BUSY = "busy"
    BEHIND = "behind"
    NO_CREDENTIAL = "no_credential"
    NO_TOKEN = "no_token"  # noqa: S105 - a word
    BAD_TOKEN = "bad_token"  # noqa: S105 - likewise


SENTENCES: dict[GateReason, str] = {
    GateReason.NO_WINDOW: "No access window is open for this. Request access, and try again once it is approved.",
    GateReason.NARROWED: "Your request was approved, but not for this resource and action. Request access to it.",
    GateReason.USED_UP: "Your access was approved for a number of uses, and all are used. Request access again.",
    GateReason.SUSPENDED: "The tenant is suspended: no access is granted. Ask an operator of the vendor.",
    GateReason.UNKNOWN_ENGINEER: "Your account is not that of an engineer at Lockbox. Ask an operator to add it.",
    GateReason.UNMAPPED: "This address is not one that can be opened. Ask the owner of the service to map it.",
    GateReason.MALFORMED: "This call can't be judged as written. Check its address, or ask whoever runs the gateway.",
    GateReason.BUSY: "Lockbox is busy. Try again in a few seconds.",
    GateReason.BEHIND: "Lockbox cannot check now whether access is open, and so grants none. Try again in a minute.",
    GateReason.NO_CREDENTIAL: "The gateway has shown no valid token of Lockbox. Ask whoever runs the gateway.",
    GateReason.NO_TOKEN: "Sign in first: your call carries no token.",
    GateReason.BAD_TOKEN: "Sign in again: your token was not accepted.",
}
UNAUTHENTICATED = frozenset({GateReason.NO_CREDENTIAL, GateReason.NO_TOKEN, GateReason.BAD_TOKEN})
"""Those that are answered with 401; all others with 403."""
REPORTABLE = frozenset(
    {
        GateReason.NO_WINDOW,
        GateReason.NARROWED,
        GateReason.USED_UP,
        GateReason.SUSPENDED,
        GateReason.UNMAPPED,
        GateReason.MALFORMED,
        GateReason.UNKNOWN_ENGINEER,
        GateReason.NO_TOKEN,
        GateReason.BAD_TOKEN,
    }
)
"""Those about the call itself, which a gate that only reports lets in; what else is wrong stays a no.

`malformed` is about the call where its path or its parameters are spelled so.
"""
REQUESTABLE = frozenset({GateReason.NO_WINDOW, GateReason.NARROWED, GateReason.USED_UP})
"""Those to which a request for access is the way out."""
