"""What was seen while the stories ran: plain facts, gathered from outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class DemoMail:
    """A mail that arrived: to whom (the part before the @), about which request, and what it tells of.

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
    """A try of a webhook call at an endpoint, and its answer; `verified` is whether its signature was right."""

    hook_id: str
    endpoint: str
    type: str
    request_id: str
    verified: bool
    status: int = 204

    @property
    def taken(self) -> bool:
        """Whether it arrived, as whoever called takes it."""
        return self.verified and self.status in range(200, 300)


@dataclass(frozen=True)
class Probe:
    """One question to the guarded service: when it was put and answered (on the database's clock), and how."""

    sent: float
    answered: float
    status: int

    @property
    def said(self) -> str:
        """The answer as a word; anything but yes and no is told by its number."""
        return {200: "serves", 403: "refuses"}.get(self.status, f"answers {self.status}")


@dataclass(frozen=True)
class DemoVerification:
    """How `lockbox audit verify` ended: how many events it found good, or the first thing that it found wrong.

    `by_break_glass` is how many windows it says were opened by break-glass.
    """

    code: int
    events: int = 0
    found: str = ""
    said: str = ""
    by_break_glass: int = 0


@dataclass(frozen=True)
class DemoAuditLog:
    """How many events the API shows, None if they were not sealed in time, and what the verifier says.

    `line` is where a byte of the export was flipped before it was verified once more.
    """

    recorded: int | None = None
    verified: DemoVerification | None = None
    line: int = 0
    flipped: DemoVerification | None = None


@dataclass
class DemoEvidence:
    """All of it; by the number of the story where it belongs to one.

    `closed_at` is when somebody who closed a request had the answer that it is closed. `after_reviews` are
    what the customer found about access by break-glass, as the API shows it. `deliveries` is the log of the
    customer's endpoint, as the API shows it.
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
