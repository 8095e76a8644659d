"""The banner that confirms the reader's last action on a request."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from lockbox.audit import event_search
from lockbox.database import UnitOfWork
from lockbox.errors import NotFound
from lockbox.identity import authentication
from lockbox.identity.roles import Caller
from lockbox.requests import inbox, queries
from lockbox.requests.models import RequestEntry
from lockbox.requests.quorum import ApprovalTally

ACTS = frozenset(
    {
        "submit",
        "endorse",
        "break_glass",
        "after_review",
        "approve",
        "deny",
        "cancel",
        "revoke",
        "complete",
        "question",
        "answer",
    },
)


@dataclass(frozen=True)
class ActBanner:
    action: str
    entry: RequestEntry
    title: str
    is_own: bool
    tallies: Sequence[ApprovalTally] = ()


def is_done(session: UnitOfWork, caller: Caller, request_id: UUID, action: str, version: int) -> bool:
    """Whether it was this action, by this reader, that brought the request to this version."""
    authentication.enter(session, caller)
    happened = event_search.events(session, request_id)
    return any((move.action, move.actor_id, move.seq) == (action, caller.person_id, version) for move in happened)


def banner_of(
    action: str,
    happened: Iterable[Any],
    caller: Caller,
    entry: RequestEntry,
    title: str,
    tallies: Sequence[ApprovalTally] = (),
) -> ActBanner | None:
    """Return None unless the log confirms that the reader took the action that the URL names."""
    if action not in ACTS or not any(one.action == action and one.actor_id == caller.person_id for one in happened):
        return None
    return ActBanner(action, entry, title, entry.request.requester_id == caller.person_id, tallies)


def on_a_list(
    session: UnitOfWork, caller: Caller, action: str, request_id: UUID | None, titles: Mapping[str, str]
) -> ActBanner | None:
    if request_id is None or action not in ACTS:
        return None
    try:
        entry = queries.find(session, caller, request_id)
    except NotFound:
        return None
    tallies = inbox.all_tallies_of(session, caller, [entry.request]).get(request_id, ())
    title = titles.get(entry.request.service, entry.request.service)
    happened = event_search.events(session, request_id)
    return banner_of(action, happened, caller, entry, title, tallies)
