"""The guard's questions and answers."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

SENTENCES = {
    "no_window": "No access window is open for this. Request access, and try again once it is approved.",
    "narrowed": "Your request was approved, but not for this resource and action. Request access to it.",
    "used_up": "Your access was approved for a number of uses, and all are used. Request access again.",
    "suspended": "The tenant is suspended: no access is granted. Ask an operator of the vendor.",
    "unknown_engineer": "Your account is not that of an engineer at Lockbox. Ask an operator to add it.",
    "unmapped": "This address is not one that can be opened. Ask the owner of the service to map it.",
    "malformed": "The service's question to Lockbox is malformed. Ask the owner of the service.",
    "busy": "Lockbox is busy. Try again in a few seconds.",
    "behind": "Lockbox cannot check now whether access is open, and so grants none. Try again in a minute.",
    "no_credential": "The service has shown no valid token of Lockbox. Ask the owner of the service.",
    "no_token": "Sign in first: your call carries no token.",
    "bad_token": "Sign in again: your token was not accepted.",
}
SIGN_IN = frozenset({"no_token", "bad_token"})
"""Reasons for which signing in helps: they are answered with 401, all other reasons with 403."""


@dataclass(frozen=True, slots=True)
class Use:
    """One action on one resource of a tenant, at a service of the catalogue."""

    tenant: str
    service: str
    resource: str
    action: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """Access is allowed.

    `request` is the access request whose window lets the call in; `until` is when that window ends by the clock of
    Lockbox's database. These and `engineer` are None if the catalogue does not gate calls of this person. `is_known`:
    the change stream brought the window; `break_glass`: the window was opened in an emergency without the customer.
    """

    use: Use
    request: UUID | None = None
    engineer: UUID | None = None
    until: datetime | None = None
    is_known: bool = field(default=False, compare=False, repr=False)
    break_glass: bool = False

    @property
    def is_gated(self) -> bool:
        """Whether the call needs a window, which can end during the call."""
        return self.request is not None


@dataclass(frozen=True, slots=True)
class NoAccess:
    """A code for the reason, a sentence for people, and where to request access if that helps."""

    reason: str
    detail: str = ""
    form: str | None = None

    @property
    def status(self) -> int:
        """401 where signing in helps, else 403."""
        return 401 if self.reason in SIGN_IN else 403

    @property
    def sentence(self) -> str:
        return self.detail or SENTENCES.get(self.reason, SENTENCES["behind"])


class Refused(Exception):  # noqa: N818 - the name says what was decided
    """No access. `reason`, `detail`, `form` and `status` say why, and what to do."""

    def __init__(self, no: NoAccess) -> None:
        super().__init__(f"{no.reason}: {no.sentence}")
        self.no = no
        self.reason = no.reason
        self.detail = no.sentence
        self.form = no.form
        self.status = no.status
