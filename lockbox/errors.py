"""Every error that a caller may see: what was refused, a stable code, and a sentence that says what to do."""

from typing import Any, ClassVar
from uuid import UUID


class LockboxError(Exception):
    """An answer other than yes. `facts` are further members of the answer, safe to show to the caller."""

    code: ClassVar[str] = "refused"

    def __init__(self, detail: str, **facts: Any) -> None:  # noqa: ANN401 - whatever the answer carries
        super().__init__(detail)
        self.detail = detail
        self.facts = facts


class Invalid(LockboxError):
    """The input breaks a rule that the caller can see and mend."""

    code = "invalid-request"


class UnknownTenant(Invalid):
    """No tenant goes by that name."""

    code = "unknown-tenant"


class UnknownService(Invalid):
    """The catalogue has no such service, or the service has no such action."""

    code = "unknown-service"


class UnknownEngineer(Invalid):
    """The named person is not an engineer in good standing."""

    code = "unknown-engineer"


class WindowTooLong(Invalid):
    """The access window is above the cap that applies; `limit_seconds` says what it is."""

    code = "window-too-long"


class CommentRequired(Invalid):
    """The tenant's policy asks for a reason with this decision."""

    code = "comment-required"


class NothingLeft(Invalid):
    """What the approvers keep of a request has nothing in common: nothing would be opened."""

    code = "nothing-left"


class PolicyNotMet(Invalid):
    """The tenant's policy asks for more than the filing says; `errors` names each field and what it lacks."""

    code = "policy-not-met"


class OutsideWindow(Invalid):
    """Something is said to have been done while the window was not open; `errors` names each entry."""

    code = "outside-window"


class UnknownPlan(Invalid):
    """No plan goes by that name."""

    code = "unknown-plan"


class NobodyCanApprove(Invalid):
    """Too few people could ever approve this, so it is not even asked."""

    code = "nobody-can-approve"


class KeyReused(Invalid):
    """The Idempotency-Key came before with another body."""

    code = "key-reused"


class KeyInUse(LockboxError):
    """A request with the same Idempotency-Key is being handled at this moment."""

    code = "key-in-use"


class NotSignedIn(LockboxError):
    """The bearer token is missing, malformed, unknown, revoked or expired.

    `person_id` is whose account was tried, where that is known; the caller is never told.
    """

    code = "invalid-token"

    def __init__(self, detail: str, *, person_id: UUID | None = None) -> None:
        super().__init__(detail)
        self.person_id = person_id


class NotYours(LockboxError):
    """The caller's roles or scopes do not cover this."""

    code = "wrong-role"


class MetricsClosed(NotYours):
    """The figures of the installation are for its own machine, or for whoever has the token for them."""

    code = "metrics-closed"


class OwnRequest(NotYours):
    """The requester never decides on the own request."""

    code = "own-request"


class AlreadyEndorsed(NotYours):
    """One person never endorses and approves the same request."""

    code = "already-endorsed"


class TenantSuspended(NotYours):
    """The tenant is suspended: nothing can be asked of it."""

    code = "tenant-suspended"


class PolicyUnverified(NotYours):
    """What a tenant laid down was changed in the database behind Lockbox's back, and counts as the strictest."""

    code = "policy-unverified"


class LicenceRequired(NotYours):
    """The tenant's plan does not include the lockbox."""

    code = "licence-required"


class SignInAgain(NotYours):
    """This needs a fresh sign-in of a person: a browser session or an OIDC token, not an API token."""

    code = "fresh-sign-in-needed"


class PasskeyMustSign(NotYours):
    """The customer's policy has each approval signed with a passkey of the approver, and this one is not."""

    code = "passkey-must-sign"


class ForeignForm(NotYours):
    """A browser's cookie came along with something that no page of ours has sent."""

    code = "cross-site"


class LastAdmin(NotYours):
    """The last admin of a tenant can't be removed."""

    code = "last-admin"


class OwnRoles(NotYours):
    """Nobody gives roles to themselves or takes their own away."""

    code = "own-roles"


class InvitationRefused(NotYours):
    """The invitation is unknown, used, withdrawn or not yet good, or its code is wrong: these are not told apart."""

    code = "invitation-refused"


class InvitationExpired(InvitationRefused):
    """The invitation was good and is over."""

    code = "invitation-expired"


class OtherSide(NotYours):
    """Nobody of the vendor's side can be a member of a customer, nor the other way round."""

    code = "other-side"


class NoOpenWindow(NotYours):
    """The door is shut."""

    code = "no-open-window"


class AuditLogRolledBack(NoOpenWindow):
    """The database was restored from a back-up that is older than what was shipped of its trail: all is shut."""

    code = "audit-log-rolled-back"


class NotFound(LockboxError):
    """There is no such thing, or none that the caller may know of: the two are not told apart."""

    code = "not-found"


class Conflict(LockboxError):
    """The request is no longer what the caller takes it for; `current_state` says what it is now."""

    code = "conflict"


class InvalidMove(Conflict):
    """The table of moves has no such row."""

    code = "invalid-move"


class NotTimedOut(Conflict):
    """Only what got no answer in time is asked again by this call."""

    code = "not-timed-out"


class AlreadyAskedAgain(Conflict):
    """It has been asked again, and that is still open; `request_id` says by which request."""

    code = "asked-again"


class TooLate(Conflict):
    """The deadline has passed."""

    code = "too-late"


class AlreadyDecided(Conflict):
    """The same person has given the same verdict before."""

    code = "already-decided"


class TooManyQuestions(Conflict):
    """As many questions were asked about this request as may be."""

    code = "too-many-questions"


class AlreadyAnswered(Conflict):
    """The question has its answer."""

    code = "already-answered"


class StaleVersion(Conflict):
    """If-Match names an older version of the request."""

    code = "stale-version"


class VersionRequired(LockboxError):
    """A whole document would be replaced without saying which version of it was seen (RFC 6585, 3)."""

    code = "precondition-required"


class SlugTaken(Conflict):
    """Another tenant goes by that name."""

    code = "slug-taken"


class AlreadyMember(Conflict):
    """Somebody with this address is a member already; their roles can be set."""

    code = "already-member"


class AlreadyInvited(Conflict):
    """An invitation to this address is open; it can be withdrawn."""

    code = "already-invited"


class RecoveryOpen(Conflict):
    """An admin has been proposed for this tenant, and that is not over yet."""

    code = "recovery-open"


class InvitationClosed(Conflict):
    """The invitation has been accepted or withdrawn."""

    code = "invitation-closed"


class TooManyEndpoints(Conflict):
    """There are as many endpoints as there may be; one can be removed."""

    code = "too-many-endpoints"


class AddressTaken(Conflict):
    """The address is somebody else's, or there already; which of the two others have it is told to nobody."""

    code = "address-taken"


class TooManyAddresses(Conflict):
    """There are as many addresses as there may be, or too many were added in a day."""

    code = "too-many-addresses"


class TooManyObservers(Conflict):
    """There are as many observers as there may be; one can be removed."""

    code = "too-many-observers"


class EndpointDisabled(Conflict):
    """The endpoint is called no more; it can be enabled again."""

    code = "endpoint-disabled"


class StillWaiting(Conflict):
    """The notification has not ended: it will be tried again by itself."""

    code = "still-waiting"


class DelegationClash(Conflict):
    """Another delegation in the same period stands in the way."""

    code = "delegation-clash"


class TooMany(LockboxError):
    """A limit was met; `retry_after` says in how many seconds the same call may go through, if that helps."""

    code = "too-many"


class Busy(LockboxError):
    """Somebody else holds what is needed; the same call may go through in a second."""

    code = "busy"


class NotReplicated(Busy):
    """It was committed, and the database's standby did not confirm it in time: a failover could undo it."""

    code = "not-replicated"
