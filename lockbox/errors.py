"""Define every error that a caller may see: a stable code, and a sentence that says what to do."""

from typing import Any, ClassVar
from uuid import UUID


class LockboxError(Exception):
    """A refusal. `facts` are further members of the answer, safe to show to the caller."""

    code: ClassVar[str] = "refused"

    def __init__(self, detail: str, **facts: Any) -> None:  # noqa: ANN401 - any member of the answer
        super().__init__(detail)
        self.detail = detail
        self.facts = facts


class Invalid(LockboxError):
    """The input breaks a rule that the caller can see and fix."""

    code = "invalid-request"


class UnknownTenant(Invalid):
    """There is no tenant with that slug."""

    code = "unknown-tenant"


class UnknownService(Invalid):
    """The catalogue has no such service, or the service has no such action."""

    code = "unknown-service"


class InvalidContext(Invalid):
    """The parameters are not those that the service declares; `errors` names each wrong parameter and what to do."""

    code = "invalid-context"


class UnknownEngineer(Invalid):
    """The named person is not an engineer in good standing."""

    code = "unknown-engineer"


class WindowTooLong(Invalid):
    """The access window is above the applicable limit; `limit_seconds` is the limit."""

    code = "window-too-long"


class CommentRequired(Invalid):
    """The tenant's policy requires a comment with this decision."""

    code = "comment-required"


class NothingLeft(Invalid):
    """The parts that the approvers kept have nothing in common, so nothing would be opened."""

    code = "nothing-left"


class PolicyNotMet(Invalid):
    """The request lacks what the tenant's policy requires; `errors` names each field and what it lacks."""

    code = "policy-not-met"


class OutsideWindow(Invalid):
    """The reported activity lies outside the window; `errors` names each entry."""

    code = "outside-window"


class UnknownPlan(Invalid):
    """The service catalogue has no plan with this name."""

    code = "unknown-plan"


class NobodyCanApprove(Invalid):
    """Too few people could approve the request, so it is not accepted."""

    code = "nobody-can-approve"


class KeyReused(Invalid):
    """The Idempotency-Key was used with another body."""

    code = "key-reused"


class KeyInUse(LockboxError):
    """A request with the same Idempotency-Key is in progress."""

    code = "key-in-use"


class NotSignedIn(LockboxError):
    """The bearer token is missing, malformed, unknown, revoked or expired."""

    code = "invalid-token"

    def __init__(self, detail: str, *, person_id: UUID | None = None) -> None:
        super().__init__(detail)
        self.person_id = person_id  # the token's owner, if known; the caller does not see it


class NotYours(LockboxError):
    """The caller's roles or scopes do not cover this."""

    code = "wrong-role"


class MetricsClosed(NotYours):
    """The metrics are only for this machine, or for callers with the metrics token."""

    code = "metrics-closed"


class OwnRequest(NotYours):
    """The requester never decides on their own request."""

    code = "own-request"


class AlreadyEndorsed(NotYours):
    """One person never endorses and approves the same request."""

    code = "already-endorsed"


class TenantSuspended(NotYours):
    """The tenant is suspended: nothing can be submitted for it."""

    code = "tenant-suspended"


class PolicyUnverified(NotYours):
    """A tenant's mode or policy was changed directly in the database; the strictest terms apply."""

    code = "policy-unverified"


class LicenceRequired(NotYours):
    """The tenant's plan does not include the lockbox."""

    code = "licence-required"


class SignInAgain(NotYours):
    """This needs a fresh sign-in: a browser session or an OIDC token, not an API token."""

    code = "fresh-sign-in-needed"


class PasskeyMustSign(NotYours):
    """The customer's policy requires each approval to be signed with the approver's passkey, and this one is not."""

    code = "passkey-must-sign"


class PasskeyTooNew(NotYours):
    """By the customer's policy the caller's first passkey cannot approve yet; the detail says from when it can."""

    code = "passkey-too-new"


class ForeignForm(NotYours):
    """A cookie came with a form that no page of ours sent."""

    code = "cross-site"


class LastAdmin(NotYours):
    """The last admin of a tenant cannot be removed."""

    code = "last-admin"


class OwnRoles(NotYours):
    """No one changes their own roles."""

    code = "own-roles"


class InvitationRefused(NotYours):
    """The invitation is unknown, used, withdrawn or not yet valid, or its code is wrong: one answer for all."""

    code = "invitation-refused"


class InvitationExpired(InvitationRefused):
    """The invitation was not accepted in time."""

    code = "invitation-expired"


class OtherSide(NotYours):
    """A person of the vendor cannot be a member of a customer, or the reverse."""

    code = "other-side"


class NoOpenWindow(NotYours):
    """No open window covers this engineer, tenant, service, resource and action."""

    code = "no-open-window"


class WindowUsedUp(NoOpenWindow):
    """The window was used as often as it may be."""

    code = "used-up"


class AuditLogRolledBack(NoOpenWindow):
    """The database is older than its shipped audit log, after a restore for example: no access is granted."""

    code = "audit-log-rolled-back"


class NotFound(LockboxError):
    """The object does not exist, or the caller may not know of it; the answer is the same for both."""

    code = "not-found"


class Conflict(LockboxError):
    """The request is no longer in the state that the caller expects; `current_state` is its state now."""

    code = "conflict"


class TenantErased(Conflict):
    """The tenant was off-boarded and erased: nothing of it changes any more, and its log stays readable."""

    code = "tenant-erased"


class InvalidMove(Conflict):
    """The table of moves does not allow this."""

    code = "invalid-move"


class TooLate(Conflict):
    """The deadline has passed."""

    code = "too-late"


class AlreadyDecided(Conflict):
    """The same person has made the same decision before."""

    code = "already-decided"


class TooManyQuestions(Conflict):
    """The request has the maximum number of questions."""

    code = "too-many-questions"


class AlreadyAnswered(Conflict):
    """The question was answered already."""

    code = "already-answered"


class EarlierStepFirst(Conflict):
    """By the policy, groups of an earlier step must approve first, and not all have; `step` is that earlier step."""

    code = "earlier-step-first"


class StaleVersion(Conflict):
    """If-Match names an older version of the request."""

    code = "stale-version"


class VersionRequired(LockboxError):
    """A replacement must name the version that it replaces (RFC 6585, 3)."""

    code = "precondition-required"


class SlugTaken(Conflict):
    """Slugs are unique, and another tenant has this one."""

    code = "slug-taken"


class AlreadyMember(Conflict):
    """A person with this address is a member already; set their roles instead."""

    code = "already-member"


class AlreadyInvited(Conflict):
    """An invitation to this address is open; withdraw it first."""

    code = "already-invited"


class RecoveryOpen(Conflict):
    """Another proposed admin for this tenant is pending."""

    code = "recovery-open"


class InvitationClosed(Conflict):
    """The invitation was accepted or withdrawn."""

    code = "invitation-closed"


class TooManyEndpoints(Conflict):
    """The maximum number of webhooks exists; remove one first."""

    code = "too-many-endpoints"


class AddressTaken(Conflict):
    """The address belongs to someone else, or exists already; the answer does not say which."""

    code = "address-taken"


class TooManyAddresses(Conflict):
    """The maximum number of addresses exists, or too many were added in a day."""

    code = "too-many-addresses"


class TooManyObservers(Conflict):
    """The maximum number of observers exists; remove one first."""

    code = "too-many-observers"


class TooManyTokens(Conflict):
    """The person has the maximum number of tokens; revoke one first."""

    code = "too-many-tokens"


class TooManyPasskeys(Conflict):
    """The person has the maximum number of passkeys; remove one first."""

    code = "too-many-passkeys"


class TooManyIdentities(Conflict):
    """The engineer has the maximum number of identities at gates; remove one first."""

    code = "too-many-identities"


class EndpointDisabled(Conflict):
    """The webhook is disabled; it can be enabled again."""

    code = "endpoint-disabled"


class StillWaiting(Conflict):
    """The notification is still being retried; wait until it has ended."""

    code = "still-waiting"


class DelegationClash(Conflict):
    """Another delegation overlaps with the period."""

    code = "delegation-clash"


class TooMany(LockboxError):
    """A limit on calls was reached; after `retry_after` seconds the call may succeed, as in `Retry-After`."""

    code = "too-many"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail, retry_after=retry_after)


class Busy(LockboxError):
    """A resource is busy; the same call may succeed in a second."""

    code = "busy"


class NotReplicated(Busy):
    """The change was committed, but the standby did not confirm it in time: a failover could undo it."""

    code = "not-replicated"
