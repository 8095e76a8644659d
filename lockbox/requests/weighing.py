"""What a request that waits would meet under another policy than today's, in sentences; nothing is written."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlmodel import Session

from lockbox.identity.models import Tenant
from lockbox.notifications.mail_text import duration
from lockbox.notifications.recipients import Directory
from lockbox.requests import decide, decisions, policy_store, stopping
from lockbox.requests.evaluate import lacking_today
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from lockbox.requests.policy_store import Ruling
from lockbox.requests.quorum import Vote, missing, who_lacks
from lockbox.requests.terms import Commented, Terms

OVER = "Nobody can approve it any more: its time to be approved is over under the new policy."
UNREVIEWED = "Nobody can approve it: no manager of the vendor has reviewed it. The vendor has to file it anew."
NO_MAIL = "A code from a mail is no longer enough to approve it, nor are approvals that were given by one."
NOT_SIGNED = (
    "Only approvals that are signed with a passkey count for it; those that were given otherwise no longer do."
)
OTHERS = "Who is asked next, and when, follows the new tiers."


@dataclass(frozen=True)
class Scene:
    """A request that waits for the customer, what it meets today and would meet, and everybody who could answer."""

    request: AccessRequest
    before: Ruling
    after: Ruling
    votes: tuple[Vote, ...]
    votes_after: tuple[Vote, ...]
    known: Directory
    at: datetime


def weigh(  # noqa: PLR0917 - what one request is weighed by
    session: Session, tenant: Tenant, request: AccessRequest, policy: Policy, known: Directory, at: datetime
) -> list[str]:
    """Say what would change for a request that waits for the customer; nothing to say means that nothing would.

    It keeps the stricter of the policy that judged it and today's, so a policy that loosens changes nothing for it.
    """
    before = policy_store.ruling(session, request)
    after = policy_store.under(session, tenant, request, policy)
    scene = Scene(
        request,
        before,
        after,
        decisions.given(session, request, known, before.terms),
        decisions.given(session, request, known, after.terms),
        known,
        at,
    )
    return [*_time(scene), *_shuts(scene), *_answers(scene), *_rest(scene)]


def _time(scene: Scene) -> Iterator[str]:
    was, then = scene.before.terms.approval_window, scene.after.terms.approval_window
    asked_at = scene.request.asked_at
    if asked_at is None:
        return
    lasts = _approvable(scene, scene.after.terms)
    if lasts >= _approvable(scene, scene.before.terms):
        return
    if scene.at >= asked_at + lasts:
        yield OVER
    elif then < was:
        yield f"It can be approved within {duration(then)} of when it came, and no longer within {duration(was)}."


def _approvable(scene: Scene, terms: Terms) -> timedelta:
    """Return for how long it can be approved; the time for which the clock stood counts where it may stand."""
    stood = stopping.stood(decide.clock_of(scene.request), scene.at) if terms.questions_stop_clock else timedelta(0)
    return timedelta(seconds=terms.approval_window) + stood


def _shuts(scene: Scene) -> Iterator[str]:
    before, after = scene.before.terms, scene.after.terms
    lacked = set(lacking_today(scene.request, before))
    yield from (
        f"Nobody can approve it: {sentence}"
        for field, sentence in lacking_today(scene.request, after)
        if (field, sentence) not in lacked
    )
    endorsed = any(vote.verdict is Action.ENDORSE for vote in scene.votes)
    if after.vendor_review and not before.vendor_review and not endorsed:
        yield UNREVIEWED


def _answers(scene: Scene) -> Iterator[str]:
    was = _still_missing(scene.request, scene.before, scene.votes)
    then = _still_missing(scene.request, scene.after, scene.votes_after)
    for group, number in then.items():
        if number != was.get(group, 0):
            whose = f" of the group {group}" if group else ""
            still = f"{number} more {'approval' if number == 1 else 'approvals'}"
            yield f"It needs {still}{whose}, and needs {was.get(group, 0)} today."
    seats = {
        person: options - {scene.request.requester_id}
        for person, options in scene.known.seats(scene.request.tenant_id).items()
        if person != scene.request.requester_id
    }
    could, can = (
        who_lacks(max(scene.request.quorum, ruling.terms.quorum), ruling.terms.stages, ruling.groups, seats)
        for ruling in (scene.before, scene.after)
    )
    yield from (f"Nobody could approve it: {reason}" for reason in can if reason not in could)


def _still_missing(request: AccessRequest, ruling: Ruling, votes: tuple[Vote, ...]) -> dict[str | None, int]:
    quorum = max(request.quorum, ruling.terms.quorum)
    return dict(missing(votes, quorum, ruling.terms.stages, ruling.groups))


def _rest(scene: Scene) -> Iterator[str]:
    before, after = scene.before.terms, scene.after.terms
    was, then = (min(scene.request.access_window, terms.access_ceiling) for terms in (before, after))
    if then < was:
        yield f"It opens for {duration(then)} at most, and no longer for {duration(was)}."
    if before.mail_suffices and not after.mail_suffices:
        yield NO_MAIL
    for decision in sorted(after.comment_required - before.comment_required - {Commented.REVOKE}):
        yield f"Whoever wants to {decision} it must say why."
    if after.approve_means > before.approve_means:
        yield NOT_SIGNED
    if after.sign_in_age < before.sign_in_age:
        yield f"Whoever approves it must have signed in within the last {duration(after.sign_in_age)}."
    if _asks(before) != _asks(after) or _groups(scene.before) != _groups(scene.after):
        yield OTHERS


def _asks(terms: Terms) -> object:
    return (terms.tiers, terms.widening if terms.tiers else ())


def _groups(ruling: Ruling) -> dict[str, tuple[UUID, ...]]:
    named = {group for tier in ruling.terms.tiers for group in tier}
    return {group: ruling.groups.get(group, ()) for group in named}
