"""Bodies of requests."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlmodel import SQLModel

from api.schemas.after_reviews import AfterReviewView
from api.schemas.parts import PersonView, RequestBody
from lockbox.facts.ask import Ask
from lockbox.facts.bounds import Resource, Seconds, Uses, Word
from lockbox.facts.clock import PublicClock
from lockbox.facts.requester import Requester
from lockbox.facts.window import PublicWindow
from lockbox.notifications.delivery_status import NotificationStatus
from lockbox.requests.activity import GateUse, WindowUsage
from lockbox.requests.lifecycle import Action, HeldBack
from lockbox.requests.quorum import ApprovalTally
from lockbox.text_rules import IS_TEXT, Instant


class CommentInput(RequestBody):
    """The reason for an action."""

    comment: Annotated[str, Field(max_length=2000), IS_TEXT] | None = None


class SignedApproval(RequestBody):
    """A passkey's answer to `approve/challenge`; everything but `credential` is sent back unchanged.

    `credential` is the browser's `PublicKeyCredential` in its JSON form (WebAuthn level 3, `toJSON`).
    """

    ticket: Annotated[str, Field(max_length=200)]
    statement: Annotated[str, Field(max_length=200_000)]
    content: Annotated[str, Field(max_length=200_000)]
    credential: dict[str, Any]


class ApprovalInput(CommentInput):
    """An approval; `access_window`, in seconds, and `max_uses` may lower what was asked.

    `resources` and `actions` limit the approval to some of those requested; without them it covers all. The window
    opens only for what every counted approval covers. `opens_at` is a later start. `signed` is the approver's own
    signature over all of that: without it, only the vendor's server attests the approval, if the customer's policy
    allows that.
    """

    access_window: Seconds | None = None
    resources: list[Resource] | None = Field(default=None, min_length=1, max_length=50)
    actions: list[Word] | None = Field(default=None, min_length=1, max_length=20)
    max_uses: Uses | None = None
    opens_at: Instant | None = None
    signed: SignedApproval | None = None


class ChallengeView(BaseModel):
    """What a passkey has to sign to approve: valid once, for ten minutes, for the same caller and body.

    `options` are for `navigator.credentials.get`, in JSON; their challenge is the SHA-256 of `statement`. `content`
    is the erasable part of the decision; the statement contains the SHA-256 of `content`. `is_demanded` is whether
    the customer's policy requires a signature.
    """

    ticket: str
    statement: str
    content: str
    options: dict[str, Any]
    is_demanded: bool


class NotificationCount(BaseModel):
    """How many of a request's notifications are in each state."""

    waiting: int = 0
    sent: int = 0
    moot: int = 0
    dead: int = 0


class DeliveryReachView(BaseModel):
    """How many people were asked in the present or last stage, and how many of them were reached.

    `stage` is `reviewing`, in which the vendor's managers are asked, or `pending`, in which the customer's approvers
    are. Of the people `asked`, `reached` were notified, `waiting` are still being tried and `unreached` could not be
    notified; the rest no longer had to be notified. `sentence` says how many are `unreached`, empty if none.
    """

    stage: str
    asked: int
    reached: int
    waiting: int
    unreached: int
    sentence: str


class NotificationList(BaseModel):
    """A request's notifications to the reader's side, the oldest first, and counts of the other side's by state."""

    own: list[NotificationStatus]
    other: NotificationCount


class IdentifiedRequest(SQLModel):
    """The first fields in the JSON of a request: shell scripts cut the id from there."""

    id: UUID
    tenant: str


class RequestView(PublicWindow, PublicClock, Requester, Ask, IdentifiedRequest):
    """A request; `open` is computed from the database's time on each read, and depends on no timer.

    `reminders` is how many were sent in this state, `tiers_asked` how many tiers of approvers were asked, 0 without
    tiers, and `warned` whether the end of the open window was announced. `resources` and `actions` are what was
    asked; `granted_resources` and `granted_actions` what a window was opened for, or null. `not_before` is the
    requested start of access, or null; `opens_at` is the actual start if later than the approval. `held_back` is why
    an approved window admits no one, or would admit no one if it began now, else null. `is_outlived` is whether the
    request waits for an answer although the window that it extends was ended. `max_uses` is how often the window can
    be used, and `uses_left` how many uses are left; null for any number. `mixed_alphabets` are the resources whose
    letters come from several alphabets: a Cyrillic letter among Latin ones looks the same and names something else.
    The requester's sign-in, and their employer and countries by the vendor's directory, are as of the submission;
    null if unknown.
    """

    model_config = ConfigDict(extra="ignore", json_schema_serialization_defaults_required=True)  # type: ignore[assignment] # SQLModel's

    requester: PersonView
    justification: str | None  # type: ignore[assignment] # null for readers who may not see it
    context: dict[str, Any] = Field(default={})
    open: bool
    held_back: HeldBack | None = None
    is_outlived: bool = False
    uses_left: int | None
    mixed_alphabets: list[str] = Field(default=[])


class DecisionView(BaseModel):
    """A decision: by whom, by what means, and on whose behalf if a delegate made it.

    `proof` says who vouches for an approval: the approver for `passkey-signed`, the vendor's server for `attested`.

    An approval can grant less than was asked. Then `access_window` (in seconds), `resources`, `actions` and
    `max_uses` are what it grants, and `opens_at` is the later start that it sets. Each is null if granted as asked.
    """

    decision: str
    by: PersonView
    role: str
    on_behalf_of: PersonView | None
    principals: list[PersonView]
    means: str | None
    proof: str | None
    at: datetime
    access_window: int | None
    resources: list[str] | None
    actions: list[str] | None
    max_uses: int | None
    opens_at: datetime | None


class AvailableMoveView(BaseModel):
    """An action that people take on requests, whether the reader may take it now, and the reason if not.

    If the action needs a comment, a shorter window or a signature, this is checked when the action is taken.
    """

    action: Action
    allowed: bool
    reason: str | None


class RequestDetail(RequestView):
    """A request with its decisions (oldest first), notifications, resubmission and extension."""

    decisions: list[DecisionView]
    notifications: NotificationCount
    reach: DeliveryReachView
    followed_by: UUID | None
    extended_by: UUID | None


class GateUseView(GateUse):
    """A use of a window: when, through which gateway and for what; names that were erased are null."""


class WindowUsageView(WindowUsage):
    """How often the gate let the engineer in by a window; `refused` counts refused calls.

    Refused calls are the engineer's other calls to the service, while the window is open and in the hour after it.
    All counts are a second behind.
    """

    first: GateUseView | None
    last: GateUseView | None


class ApprovalTallyView(ApprovalTally):
    """How many approvals count so far, and how many the policy needs: from `group`, or from anyone if it is null.

    A group of a later `step` is asked once each group of the earlier steps has approved.
    """


class RequestWithMoves(RequestDetail):
    """A request as a reader sees it, and for each action whether the reader may take it now.

    `approvals` is empty if the customer is not asked, `usage` is null if the request was never open, and
    `after_review` is null if it was not opened by break-glass. If the reader could be the second person to decide,
    `look_alikes` names people who took part and share the reader's name or mailbox: a hint that refuses nothing.
    """

    available_moves: list[AvailableMoveView]
    approvals: list[ApprovalTallyView]
    usage: WindowUsageView | None
    after_review: AfterReviewView | None
    look_alikes: list[str] = Field(default=[])


class NewRequestView(RequestView):
    """A new request, and how many people are asked about it."""

    asked: int


class RequestPage(BaseModel):
    """A page of requests, the newest first."""

    items: list[RequestView]
    next_cursor: str | None


class NotifiedRecipientView(BaseModel):
    """A mail to a named person; `outcome` is `sent`, `dead`, `moot` or `open`; `at` is null for `open`."""

    id: UUID
    name: str
    channel: str
    outcome: str
    at: datetime | None


class NotifiedView(BaseModel):
    """How the mails about an event ended; `of_seq` is the number of the move, or null if the event was not a move.

    A second event, `part` 2, tells how mails that were still open in part 1 ended. `template` is `report` for the
    reports on a window, else null. If there are very many mails, undelivered mails are listed first, and `not_listed`
    counts the rest.
    """

    of_seq: int | None
    part: int
    template: str | None
    sent: int
    dead: int
    moot: int
    open: int
    recipients: list[NotifiedRecipientView]
    not_listed: int


class EventView(BaseModel):
    """An event of a request's timeline; the actor is a person, or null for the clock.

    Moves are numbered by `seq` without a gap. Other events have no `seq`, such as `remind`, `escalate`, `begin`,
    `hold_back`, `warn`, `notified`, `first_used`, `after_review`, `question` and `answer`. The text of a question or
    an answer is in `comment`. A `notified` event says who of the reader's own side got mail about an earlier event;
    the other side does not see it. `on_behalf_of` is for whom a service account or a delegate acted, `principals` all
    principals of a delegate, `means` how the decider had signed in: `mail-only` is a mailed code. Address and user
    agent are shown to the actor's own side, comments to both parties; others get null.

    A time-out says how many people were `asked` and `reached`. An escalation says how many were `unreached`, if it
    happened because of them. `step` is the step of approvals that an event began. `hold_back` says in `held_back` why
    a window admits no one though its time has come.
    """

    seq: int | None
    at: datetime
    action: str
    actor: PersonView | None
    role: str
    on_behalf_of: PersonView | None
    principals: list[PersonView]
    means: str | None
    proof: str | None
    address: str | None
    user_agent: str | None
    from_state: str | None
    to_state: str | None
    deadline_at: datetime | None
    comment: str | None
    follows: UUID | None
    asked: int | None
    reached: int | None
    unreached: int | None
    step: int | None
    held_back: HeldBack | None
    nobody_notified: bool
    notified: NotifiedView | None


class EventList(BaseModel):
    """A request's timeline, complete and in order."""

    items: list[EventView]
