"""What an engineer asks for, or a system for an engineer, before it is judged; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from config.context_schema import ContextValue
from lockbox.facts.enumerations import CaseCheck, Reason, Severity


@dataclass(frozen=True)
class RequestInput:
    """What an engineer asks for; `access_window` in seconds. A system names the engineer for whom it files.

    `follows` is the request that is asked again by this one. Without `max_uses` it is as often as the policy says.
    `not_before` is when access is to begin, None for at once. `extends` is the request whose window goes on by this
    one, and `first_opened_at` when the first of these windows began. With `break_glass` a manager may open it in an
    emergency without the customer.
    `duplicate_reason` is why it is submitted beside an open request for the same case and resource. `case_check` is
    what the ticket system says of the case, once a door has asked it.
    """

    tenant: str
    service: str
    resources: Sequence[str]
    actions: Sequence[str]
    reason_code: Reason
    justification: str
    case_ref: str | None
    access_window: int
    engineer: UUID | None = None
    max_uses: int | None = None
    not_before: datetime | None = None
    follows: UUID | None = None
    break_glass: bool = False
    extends: UUID | None = None
    first_opened_at: datetime | None = None
    case_system: str | None = None
    case_url: str | None = None
    duplicate_reason: str | None = None
    case_check: CaseCheck | None = None
    severity: Severity | None = None
    context: Mapping[str, ContextValue] = field(default_factory=dict)


REPEATED = (
    *("tenant", "service", "resources", "actions", "reason_code", "justification"),
    *("case_ref", "case_system", "case_url", "max_uses"),
)


def repeated(earlier: Any, **changes: Any) -> RequestInput:  # noqa: ANN401 - a row
    """Return what an earlier request asked for, and what is asked otherwise now; its row has its tenant's slug."""
    values = {name: getattr(earlier, name) for name in REPEATED}
    values |= {"context": earlier.context or {}, "engineer": earlier.requester_id}
    values["severity"] = Severity(earlier.severity) if earlier.severity else None
    return RequestInput(**values | changes)
