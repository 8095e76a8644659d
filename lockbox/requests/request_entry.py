"""A request with the names around it, and whether it is open."""

from dataclasses import dataclass

from lockbox.requests.lifecycle import HeldBack
from lockbox.requests.models import AccessRequest


@dataclass(frozen=True)
class RequestEntry:
    """A request as a reader sees it: the row, the requester's name, and whether it is open.

    `tenant` is the tenant's slug, and `tenant_name` what it is called now.
    `held_back` is why a window that was approved lets nobody in, or would not if it began now; `is_same_use` whether
    the call has used it before, within five seconds. `is_outlived` is whether it waits for an answer that nobody can
    use: somebody has ended the window that it extends.
    """

    request: AccessRequest
    tenant: str
    requester: str
    open: bool
    held_back: HeldBack | None = None
    tenant_name: str = ""
    uses_left: int | None = None
    is_same_use: bool = False
    is_outlived: bool = False
