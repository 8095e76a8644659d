"""What a call uses and who makes it, as the service says."""

from dataclasses import dataclass
from uuid import UUID

from lockbox_guard.decisions import NoAccess, Refused

BEARER = "bearer"


@dataclass(frozen=True, slots=True)
class GuardedCall:
    """What a call uses, as for `Guard.check`.

    If the last three are not set, the call's bearer token names the caller.
    """

    tenant: str
    resource: str
    action: str
    service: str | None = None
    token: str | None = None
    subject: str | None = None
    engineer: UUID | str | None = None

    def token_or(self, shown: list[str]) -> str | None:
        """Return `token`; if no field names the caller, return the token in the `Authorization` headers `shown`.

        Raises:
            Refused: there are several headers.
        """
        if self.subject is not None or self.engineer is not None or self.token is not None:
            return self.token
        if len(shown) > 1:
            raise Refused(NoAccess("malformed", "The call shows more than one token. Send one."))
        scheme, _, token = shown[0].partition(" ") if shown else ("", "", "")
        return token if scheme.lower() == BEARER else None


class CallCut(OSError):  # noqa: N818 - the name says what was done
    """The window has ended, and the call with it: nothing more is read or sent."""
