"""What was seen while the stories ran: plain facts, gathered from outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DemoMail:
    """A mail that arrived: to whom (the part before the @), about which request, and about which state.

    `at` is when it came, on the database's clock.
    """

    message_id: str
    request_id: str
    to: str
    state: str
    subject: str
    at: float = 0.0


@dataclass(frozen=True)
class DemoWebhookCall:
    """An attempt to call a webhook, and the endpoint's answer; `verified` is whether the signature was right."""

    hook_id: str
    endpoint: str
    type: str
    request_id: str
    verified: bool
    status: int = 204

    @property
    def taken(self) -> bool:
        """Whether the call arrived in the eyes of its sender."""
        return self.verified and self.status in range(200, 300)


@dataclass(frozen=True)
class Probe:
    """One call to the guarded service: when it was sent and answered (on the database's clock), and the status."""

    sent: float
    answered: float
    status: int

    @property
    def said(self) -> str:
        """The answer as a word, or as its status if it is neither yes nor no."""
        return {200: "serves", 403: "refuses"}.get(self.status, f"answers {self.status}")


@dataclass(frozen=True)
class DemoVerification:
    """How `lockbox audit verify` ended: how many events it found intact, or the first thing that it found wrong.

    `by_break_glass` is how many windows were opened by break-glass, by its count.
    """

    code: int
    events: int = 0
    found: str = ""
    said: str = ""
    by_break_glass: int = 0


@dataclass(frozen=True)
class DemoAuditLog:
    """How many events the API shows (None if they were not sealed in time), and what the verifier says.

    `line` is where a byte of the export was flipped before it was verified once more.
    """

    recorded: int | None = None
    verified: DemoVerification | None = None
    line: int = 0
    flipped: DemoVerification | None = None


@dataclass
class DemoEvidence:
    """Everything that was seen, by the number of the story if it belongs to one.

    `closed_at` is when the person who closed a request had the answer that it is closed. `after_reviews` are the
    customer's findings about access by break-glass, as the API shows them. `deliveries` is the log of the customer's
    endpoint, as the API shows it.
    """

    requests: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    events: dict[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    probes: dict[int, Sequence[Probe]] = field(default_factory=dict)
    closed_at: dict[int, float] = field(default_factory=dict)
    after_reviews: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    mails: Sequence[DemoMail] = ()
    hooks: Sequence[DemoWebhookCall] = ()
    deliveries: Sequence[Mapping[str, Any]] = ()
    submitted: int = 0
    same_answer: bool = False
    tasks: dict[str, int] = field(default_factory=dict)
    control: dict[str, int] = field(default_factory=dict)
    audit_log: DemoAuditLog = field(default_factory=DemoAuditLog)
    surprises: list[str] = field(default_factory=list)
