"""Bodies of requests: what an engineer files, what a person answers, what a reader sees."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.parts import IS_LINE, IS_TEXT, PersonView, RequestBody, Resource, Seconds, Slug, Word
from lockbox.identity.roles import Mode
from lockbox.requests.lifecycle import Action, State
from lockbox.requests.policy import Reason, Terms


class NewRequest(RequestBody):
    """What an engineer asks for; `access_window` in seconds."""

    tenant: Slug
    service: Word
    resources: list[Resource] = Field(min_length=1, max_length=50)
    actions: list[Word] = Field(default=["read"], min_length=1, max_length=20)
    reason_code: Reason
    justification: Annotated[str, Field(max_length=4000), IS_TEXT]
    case_ref: Annotated[str, Field(max_length=100), IS_LINE] | None = None
    access_window: Seconds
    engineer: UUID | None = Field(default=None, description="only where a system files for an engineer")


class CommentInput(RequestBody):
    """Why somebody acts."""

    comment: Annotated[str, Field(max_length=2000), IS_TEXT] | None = None


class SignedApproval(RequestBody):
    """A passkey's answer to what `approve/challenge` gave out; all but `credential` is sent back as it came.

    `credential` is the browser's `PublicKeyCredential` in its JSON form (WebAuthn level 3, `toJSON`).
    """

    ticket: Annotated[str, Field(max_length=200)]
    statement: Annotated[str, Field(max_length=200_000)]
    content: Annotated[str, Field(max_length=200_000)]
    credential: dict[str, Any]


class ApprovalInput(CommentInput):
    """A yes; `access_window` in seconds shortens what was asked.

    `resources` and `actions` are what is kept of those that were asked, all where they are left out: what opens is
    what every approval that counts has kept. `signed` is the approver's own signature over all of that: where it is
    left out, the vendor's server alone attests the approval, if the customer's policy lets it.
    """

    access_window: Seconds | None = None
    resources: list[Resource] | None = Field(default=None, min_length=1, max_length=50)
    actions: list[Word] | None = Field(default=None, min_length=1, max_length=20)
    signed: SignedApproval | None = None


class ChallengeView(BaseModel):
    """What to have a passkey sign so that it approves: good once, for ten minutes, for the same caller and body.

    The challenge in `options`, which are those of `navigator.credentials.get` in JSON, is the SHA-256 of `statement`.
    `content` holds what of the decision may be erased; the statement has its SHA-256. `is_demanded` is whether the
    customer's policy takes no approval without.
    """

    ticket: str
    statement: str
    content: str
    options: dict[str, Any]
    is_demanded: bool


class NotificationCount(BaseModel):
    """How far the notifications of a request have come."""

    waiting: int = 0
    sent: int = 0
    moot: int = 0
    dead: int = 0


class DeliveryReachView(BaseModel):
    """How many people were asked in the present or last stage, and how many of them have been told.

    `stage` is `reviewing`, in which the vendor's managers are asked, or `pending`, in which the customer's approvers
    are. Of `asked`, `reached` were told, `waiting` are still being tried and `unreached` could not be told; the rest
    no longer had to be. `sentence` says it where not all could be reached, and is empty otherwise.
    """

    stage: str
    asked: int
    reached: int
    waiting: int
    unreached: int
    sentence: str


class LastAttemptView(BaseModel):
    """How the last try of a notification went; `error` is null where it arrived."""

    at: datetime
    took_ms: int
    status: int | None
    error: str | None


class NotificationView(BaseModel):
    """One notification to somebody on the reader's own side; `outcome` is `waiting`, `sent`, `moot` or `dead`.

    `address` is where a mail goes, null where that is not known any more; `copied` is whether the recipient only
    watches.
    """

    id: UUID
    recipient: str
    address: str | None
    copied: bool
    channel: str
    template: str
    event_at: datetime
    outcome: str
    attempts: int
    next_try_at: datetime | None
    closed_at: datetime | None
    last_error: str | None
    last_try: LastAttemptView | None


class NotificationList(BaseModel):
    """Notifications of a request to the reader's side, oldest first, and how those to the other side fared."""

    own: list[NotificationView]
    other: NotificationCount


class RequestView(BaseModel):
    """A request; `open` is computed on the database's clock when asked, never from a timer having fired.

    The justification is null for readers whom it is not meant for, such as the vendor's auditors. `reminders` were
    sent since it is in this state, `tiers_asked` is how far the tiers of approvers were asked, 0 where there are
    none, and `warned` is whether the end of the open window was announced. `follows` is the request that got no
    answer in time and is asked again by this one. `resources` and `actions` are what was asked; `granted_resources`
    and `granted_actions` what a window was opened for, null where none was.
    `mixed_alphabets` are those of the resources whose letters come from several alphabets: a Cyrillic letter among
    Latin ones looks the same and names something else.
    """

    id: UUID
    tenant: str
    requester: PersonView
    service: str
    resources: list[str]
    actions: list[str]
    reason_code: str
    justification: str | None
    case_ref: str | None
    mode: Mode
    policy_version: int
    state: State
    open: bool
    version: int
    quorum: int
    access_window: int
    deadline_at: datetime
    created_at: datetime
    opened_at: datetime | None
    closed_at: datetime | None
    reminders: int
    tiers_asked: int
    warned: bool
    follows: UUID | None
    granted_resources: list[str] | None = None
    granted_actions: list[str] | None = None
    mixed_alphabets: list[str] = []


class DecisionView(BaseModel):
    """One answer to a request: by whom, by what means, and in the place of whom where a delegate gave it.

    `proof` is whose word an approval is: `passkey-signed` is the approver's own, `attested` the vendor's server's.

    An approval that narrows what was asked has the `access_window` in seconds, the `resources` and the `actions` that
    it keeps; null is as asked.
    """

    verdict: str
    by: PersonView
    role: str
    on_behalf_of: PersonView | None
    stands_for: list[PersonView]
    means: str | None
    proof: str | None
    at: datetime
    access_window: int | None
    resources: list[str] | None
    actions: list[str] | None


class AvailableMoveView(BaseModel):
    """A move that people make on requests, whether the reader may make it now, and the reason where they may not.

    A comment, a shorter window or a signature that the move needs is judged when it is made.
    """

    action: Action
    allowed: bool
    reason: str | None


class RequestDetail(RequestView):
    """A request with the answers to it, the oldest first, how its notifications fared, and what asks for it again."""

    decisions: list[DecisionView]
    notifications: NotificationCount
    reach: DeliveryReachView
    followed_by: UUID | None


class RequestWithMoves(RequestDetail):
    """A request as somebody reads it, and for each move of people whether the reader may make it at this moment."""

    available_moves: list[AvailableMoveView]


class NewRequestView(RequestView):
    """A request that was just filed, and how many people are asked about it."""

    asked: int


class RequestPage(BaseModel):
    """Some requests, newest first; `next_cursor` leads to those that follow."""

    items: list[RequestView]
    next_cursor: str | None


class UndeliveredNotificationView(BaseModel):
    """A notification that did not arrive; `recipient` is null for readers of the other side, `error` is a word."""

    template: str
    channel: str
    recipient: str | None
    error: str


class EventView(BaseModel):
    """One entry of a request's timeline; the actor is a person, or null where the clock acted.

    Moves are numbered by `seq` without a gap; what happened beside them has none: `remind`, `widen`, `warn`,
    `unreached`, `notification_dead`, `decision_refused`, `question` and `answer`, whose words are in `comment`.
    `on_behalf_of` is for whom a system or a delegate acted, `stands_for` all whose delegate a person was, `means` how
    the decider had signed in: `mail-only` is a mailed code. Address and user agent are shown to the actor's own side,
    comments to both parties; others get null. A time-out says how many people were `asked`
    and `reached`; `unreached` is how many could not be where an audience was widened because of it.
    """

    seq: int | None
    at: datetime
    action: str
    actor: PersonView | None
    role: str
    on_behalf_of: PersonView | None
    stands_for: list[PersonView]
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
    nobody_told: bool
    notification: UndeliveredNotificationView | None


class EventList(BaseModel):
    """The timeline of a request, complete and in order."""

    items: list[EventView]


class AccessView(BaseModel):
    """An open window, and what it was asked about: let this engineer do this, and ask again before `deadline_at`.

    A guarded system compares all of it with what it is about to serve.
    """

    open: Literal[True] = True
    tenant: str
    service: str
    resource: str
    action: str
    engineer: UUID
    request_id: UUID
    deadline_at: datetime


class StageView(BaseModel):
    """A stage: a group that must also agree, how many of it, and who could."""

    group: str
    approvals: int
    people: list[str]


class MissingField(BaseModel):
    """A field of the filing and what it lacks under the tenant's policy."""

    field: str
    message: str


class MailboxesView(BaseModel):
    """Somebody who would be told, and at how many addresses."""

    name: str
    mailboxes: int


class PreviewView(BaseModel):
    """What a request would meet and whom it would reach: names and counts, no addresses; nothing was written.

    `can_be_filed` is whether it would be taken as it is. `told_first` are those of the customer whom it would reach
    first, asked or told of what the vendor opens alone; `endpoints` is how many of its webhooks.
    """

    can_be_filed: bool
    policy_version: int
    mode: Mode
    first_state: State
    terms: Terms
    reviewers: list[str]
    reviewers_asked_first: list[str]
    asked_first: list[str]
    could_approve: list[str]
    told_first: list[MailboxesView]
    endpoints: int
    stages: list[StageView]
    lacks: list[MissingField]
    obstacles: list[str]


class WhatIfInput(RequestBody):
    """What could be asked of a tenant, as far as its policy looks at it."""

    service: Word
    resources: list[Resource] = Field(min_length=1, max_length=50)
    actions: list[Word] = Field(default=["read"], min_length=1, max_length=20)
    reason_code: Reason


class MailRecipientView(BaseModel):
    """Somebody who would be told by mail, and at which addresses."""

    name: str
    addresses: list[str]


class WhatIfView(BaseModel):
    """What a request would meet, for the tenant's own people; nothing was written and nobody was told.

    `reviewers` is how many of the vendor could endorse it. `told_first` are asked, or told of what the vendor opens
    alone; `quiet` could decide and want no prompts; `copied` cannot decide. `endpoints` are described, or else named
    by their host. `warnings` say where the answer is nobody.
    """

    policy_version: int
    mode: Mode
    first_state: State
    terms: Terms
    reviewers: int
    told_first: list[MailRecipientView]
    could_approve: list[str]
    quiet: list[str]
    stages: list[StageView]
    endpoints: list[str]
    copied: list[MailRecipientView]
    warnings: list[str]
