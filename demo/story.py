"""The nine stories: what is asked, who does what and when, and who must be notified; written out, never derived."""

from dataclasses import dataclass

APPROVAL_SECONDS = 8
ACCESS_SECONDS = 5
FIRST_SECONDS = 8
"""A window that is long enough for somebody to ask for more time, and for somebody to approve it."""
REVOKED_SECONDS = 20
"""A window that runs on long after its revoke, so that only the revoke can be the cause of a refusal."""
RECEIPT = "receipt"
DESK, CLOSE = "helpdesk", "closed"
"""The service account of the ticket system, and the state of a case that it reports."""
EXTEND, BREAK_GLASS, FIND = "extend", "break-glass", "finding"
"""The actions to request more time, to open access as a manager in an emergency, and to give a finding about it."""
JUSTIFIED = "justified"
ALARMED = ("amir", "ann", "tara")
"""The customer's people who must be notified of break-glass at once."""
REMINDED = "1 reminder, 2 tiers"
"""What a timer does with an unanswered request: it reminds the people who were asked, then asks others too."""
ENDPOINTS = ("customer", "vendor")
"""The sides with a webhook."""
OUT_OF_ORDER = ("customer", "request.denied")
"""The only call at which a receiver fails for a while: which side's endpoint it is, and the type of the event."""
STATUSES = (503, 503, 204)
"""The receiver's answers to the attempts of that call."""


@dataclass(frozen=True)
class Cue:
    """What a person does this many seconds after the start, once everyone who is asked has been notified."""

    after: float
    who: str
    action: str


@dataclass(frozen=True)
class StoryStep:
    """One move: the state that it leads to, who makes it, who gets a mail about it, and whose endpoint is called.

    `receipts` are for the person who decided, and for the tenant's admin if the decision was for the tenant. `event`
    is the name that endpoints get, and `mail` what mails are about, if it is not the state.
    """

    state: str
    by: str
    mails: str
    hooks: tuple[str, ...] = ENDPOINTS
    receipts: str = ""
    event: str = ""
    mail: str = ""

    @property
    def event_type(self) -> str:
        """The type of the webhook calls about this step."""
        return f"request.{self.event or self.state}"

    @property
    def all_mails(self) -> list[tuple[str, str]]:
        """Every mail about this step: what it is about, and to whom it goes."""
        outcomes = [(self.mail or self.state, who) for who in self.mails.split()]
        return outcomes + [(RECEIPT, who) for who in self.receipts.split()]


@dataclass(frozen=True)
class Story:
    """One request, from what is asked to how it must end.

    `beside` is what people are notified of apart from the moves: reminders, a window that begins, a finding. A story
    that `extends` another (by its number) is submitted while that one plays, for the same mailbox; all other stories
    are submitted at the start.
    """

    number: int
    title: str
    mailbox: str
    cues: tuple[Cue, ...]
    steps: tuple[StoryStep, ...]
    beside: tuple[StoryStep, ...] = ()
    twice: bool = False
    seconds: int = ACCESS_SECONDS
    extends: int = 0
    break_glass: bool = False

    @property
    def end(self) -> str:
        """The state in which it must end."""
        return self.steps[-1].state

    @property
    def told(self) -> tuple[StoryStep, ...]:
        """All steps of which somebody must be notified."""
        return (*self.steps, *self.beside)

    @property
    def opens(self) -> bool:
        """Whether the guarded service must serve for a while."""
        return any(step.state == "active" for step in self.steps)


STORIES = (
    Story(
        1,
        "endorsed, approved by two",
        "anna",
        (Cue(1.0, "max", "endorse"), Cue(2.0, "ann", "approve"), Cue(3.0, "amir", "approve")),
        (
            StoryStep("reviewing", "erin", "max", ("vendor",), event="submitted"),
            StoryStep("pending", "max", "ann amir", receipts="max", event="endorsed"),
            StoryStep("pending", "ann", "", receipts="ann tara", event="approved"),
            StoryStep("active", "amir", "ann erin", receipts="amir tara", event="approved"),
            StoryStep("expired", "the clock", "ann amir erin"),
        ),
    ),
    Story(
        2,
        "denied",
        "boris",
        (Cue(4.5, "amir", "deny"),),
        (
            StoryStep("pending", "erin", "ann amir", event="submitted"),
            StoryStep("denied", "amir", "ann erin", receipts="amir tara"),
        ),
    ),
    Story(
        3,
        "left unanswered",
        "carla",
        (),
        (
            StoryStep("pending", "erin", "ann", event="submitted"),
            StoryStep("timed_out", "the clock", "ann amir erin"),
        ),
        beside=(
            StoryStep("answer_reminder", "the clock", "ann", event="reminded"),
            StoryStep("pending", "the clock", "amir", event="escalated"),
        ),
    ),
    Story(
        4,
        "approved, then revoked",
        "dimitri",
        (Cue(2.0, "amir", "approve"), Cue(4.5, "tara", "revoke")),
        (
            StoryStep("pending", "erin", "ann amir", event="submitted"),
            StoryStep("active", "amir", "ann erin", receipts="amir tara", event="approved"),
            StoryStep("revoked", "tara", "ann amir erin"),
        ),
        seconds=REVOKED_SECONDS,
    ),
    Story(
        5,
        "sent twice, then withdrawn",
        "elena",
        (Cue(3.5, "erin", "cancel"),),
        (
            StoryStep("pending", "erin", "ann amir", event="submitted"),
            StoryStep("cancelled", "erin", "ann amir erin"),
        ),
        twice=True,
    ),
    Story(
        6,
        "approved, then case closed",
        "felix",
        (Cue(2.0, "ann", "approve"), Cue(4.5, DESK, CLOSE)),
        (
            StoryStep("pending", "erin", "ann amir", event="submitted"),
            StoryStep("active", "ann", "amir erin", receipts="ann tara", event="approved"),
            StoryStep("revoked", DESK, "ann amir erin"),
        ),
    ),
    Story(
        7,
        "approved, extended by 8",
        "gina",
        (Cue(1.0, "ann", "approve"), Cue(1.5, "erin", EXTEND)),
        (
            StoryStep("pending", "erin", "ann amir", event="submitted"),
            StoryStep("active", "ann", "amir erin", receipts="ann tara", event="approved"),
            StoryStep("expired", "the clock", "ann amir erin"),
        ),
        seconds=FIRST_SECONDS,
    ),
    Story(
        8,
        "approved, goes on from 7",
        "gina",
        (Cue(2.0, "amir", "approve"),),
        (
            StoryStep("pending", "erin", "ann amir", event="submitted"),
            StoryStep("active", "amir", "ann erin", receipts="amir tara", event="approved"),
            StoryStep("expired", "the clock", "ann amir erin"),
        ),
        beside=(StoryStep("begun", "the clock", "ann amir erin"),),
        extends=7,
    ),
    Story(
        9,
        "break-glass, then a finding",
        "heidi",
        (Cue(3.0, "max", BREAK_GLASS), Cue(8.0, "ann", FIND)),
        (
            StoryStep("reviewing", "erin", "max", ("vendor",), event="submitted"),
            StoryStep("active", "max", "ann amir tara erin", receipts="max", event="break_glass", mail=BREAK_GLASS),
            StoryStep("expired", "the clock", "ann amir tara erin"),
        ),
        beside=(StoryStep("after_review", "ann", "amir tara max erin"),),
        break_glass=True,
    ),
)

SUBJECTS = {
    "reviewing": "Review needed",
    "pending": "Approval needed",
    "answer_reminder": "Reminder",
    "begun": "Access to .* is open now",
    "active": "Access to ",
    BREAK_GLASS: ".* has access to .* without the customer's approval",
    "after_review": "Found justified",
    "denied": "Denied",
    "cancelled": "Cancelled by vendor",
    "timed_out": "Timed out",
    "revoked": "Revoked",
    "expired": "Expired",
    RECEIPT: "Receipt",
}
"""Patterns for the beginning of a mail's subject, by what the mail is about. The first match counts."""
MARK = "BREAK-GLASS: "
"""The prefix of the subject in each mail about break-glass."""

TASKS = ("lockbox.notify", "lockbox.time_out", "lockbox.expire")
"""The tasks that operators must see in Flower while the stories run."""
