"""Failpoints: places between two effects at which tests can end a process as in a crash."""

import os
from dataclasses import dataclass

KILLED = 137
"""The exit code of a process that ended at its failpoint, as if killed."""

POINTS = {
    "intake.after_evaluation": "a submission was judged, and nothing is written",
    "intake.after_insert": "request, event and its row in the outbox are written, and nothing is committed",
    "decide.after_lock": "a person's request is locked, and nothing is judged",
    "decide.after_evaluation": "a person's move is judged, and nothing is written",
    "window.after_use": "a window for a number of uses is used once more, and nothing is committed",
    "decide.after_update": "request, decision, event and its row in the outbox are written, and nothing is committed",
    "extension.after_end": "what extends a window that somebody ended has ended with it, and nothing is committed",
    "pre_approval.after_use": "a pre-approval is used once more, and nothing is committed",
    "pre_approval.after_end": "a window that a revoked pre-approval had opened has ended, and others have not",
    "case.after_lock": "the requests of a closed case are locked, and none has ended",
    "case.after_end": "a request of a closed case has ended, and others have not; nothing is committed",
    "case_check.before_call": "the question about a case is read, and its ticket system has not been asked",
    "case_check.after_answer": "a ticket system has answered about a case, and nobody noted that",
    "case_check.after_record": "what a ticket system said of a case is recorded, and the worker does not go on",
    "after_review.after_finding": "a finding about break-glass is written with its event, and nothing is committed",
    "after_review.after_reminder": "reminders of findings are written with their events, and nothing is committed",
    "pipeline.before_commit": "a call on the event loop, or a group, is judged, and what it writes is not sent",
    "pipeline.after_commit": "a call on the event loop, or a group, is committed, and nothing is armed or answered",
    "pipeline.before_arm": "calls on the event loop are committed and may be answered, and no index knows of them",
    "pipeline.after_arm": "the indexes know what calls on the event loop promised",
    "transaction.before_arm": "a transaction is committed, and an index does not know of it",
    "transaction.after_arm": "an index knows what a transaction promised; the next one, or the caller, does not",
    "schedule.after_part": "some hundred of all that was promised are armed",
    "schedule.after_claim": "members are out on lease, and no message was sent",
    "poller.before_send": "a poller has claimed, and no message was sent",
    "poller.mid_batch": "a message is on its way to the broker, which has not got the batch",
    "poller.after_send": "the broker has the message, and the poller has not gone on",
    "broker.after_pop": "a message was taken off its queue, and stands nowhere else",
    "broker.after_receive": "a message is noted as received, and not yet run",
    "broker.before_ack": "a message has run, and the broker does not know",
    "broker.after_ack": "a message has run and is gone from the broker",
    "clock.after_lock": "requests that are due are locked, and nothing is written",
    "clock.after_move": "what the clock moves is written, with its events and the outbox; what follows is not",
    "clock.before_commit": "all that the clock does to what has ended is written, and nothing is committed",
    "clock.after_commit": "what has ended is committed, and nobody was reminded yet",
    "clock.after_reminder": "a reminder is written, and nothing is committed",
    "reconcile.after_overdue": "what was overdue has run from Postgres, and the indexes are not looked at",
    "reconcile.epoch_changed": "an index was found lost, and nothing of it is rebuilt",
    "reconcile.mid_rebuild": "a page of a lost index is rebuilt",
    "reconcile.before_whole": "a lost index is rebuilt, and not marked as whole",
    "reconcile.after_whole": "a lost index is whole again",
    "notify.before_claim": "a process has a message of notifications, and claimed none",
    "fan_out.after_take": "events are out of the outbox, and nobody's notification is written",
    "fan_out.after_write": "notifications of events are written and claimed, and nothing is committed",
    "notify.after_number": "the calls of an endpoint have their numbers, and none is claimed",
    "notify.after_claim": "notifications are claimed, and none is on its way",
    "notify.before_send": "a notification is to be sent, and nothing of it has left",
    "smtp.after_connect": "the mail relay is connected, and has no mail",
    "smtp.after_data": "the mail relay has taken the mail, and nobody noted that",
    "webhook.before_call": "a webhook is signed, and not called",
    "webhook.after_response": "a webhook has answered, and nobody noted that",
    "notify.before_record": "notifications were sent, and no transaction notes that yet",
    "notify.after_write": "that notifications were sent is written, and not committed",
    "settle.before_event": "a move's mails are settled, and no event says how they ended",
    "settle.after_event": "the event that says how a move's mails ended is written, and nothing is committed",
    "notify.after_record": "that notifications were sent is committed, and whoever waits does not know",
    "connector.after_claim": "a connection is claimed, and its target was not called",
    "connector.before_open": "the role is made at the target, and not committed there",
    "connector.after_open": "the access is open at the target, and nothing is recorded",
    "connector.after_lockout": "nobody can sign in at the target any more, and sessions go on",
    "connector.before_drop": "the sessions at the target are ended, and the role is there",
    "connector.after_close": "the access is closed at the target, and nothing was checked or recorded",
    "connector.before_record": "the outcome of a step is written, and not committed",
    "connector.after_record": "the outcome of a step is recorded, and nothing is armed",
    "sealer.after_take": "events are taken to be sealed, and have no place yet",
    "sealer.after_tree": "events have their places in the tree, and nothing is signed",
    "sealer.after_sign": "a checkpoint is signed, and nothing is committed",
    "sealer.before_ship": "a checkpoint is committed, and not shipped",
    "shipping.before_replace": "a checkpoint is written beside the one that it replaces",
    "sealer.after_ship": "a checkpoint is shipped, and nobody is notified of it",
    "sealer.after_heartbeat": "the checkpoint of the hour is signed and kept, and nothing is committed",
    "sealer.after_promise": "notifications of a checkpoint are written, and nothing is committed",
    "departure.before_close": "a tenant that leaves has no members any more, and nothing is committed",
    "departure.before_export": "a tenant that leaves is closed, and its log was not exported",
    "departure.before_exported": "a tenant's log is exported, which is written and not committed",
    "departure.after_texts": "texts of a tenant that leaves are erased for good, and its people and events are there",
    "departure.after_person": "a person of a tenant that leaves is erased for good, and others are not",
    "departure.before_erased": "the name of a tenant that leaves is erased with an event, and nothing is committed",
    "retention.before_record": "an event says which events of a log will go, and nothing is committed",
    "retention.after_record": "it is on record which events of a log will go, and none of them is gone",
    "retention.mid_step": "some rows of a step are removed, and nothing is committed",
    "retention.after_step": "the rows of a step are removed for good, and those of the next are all there",
}


class UnknownFailpoint(Exception):  # noqa: N818 - it names what was found
    pass


@dataclass
class _ArmedFailpoint:
    name: str
    left: int


_armed: _ArmedFailpoint | None = None


def arm(chosen: str | None) -> None:
    """Make this process and its children end at a failpoint.

    `chosen` is the failpoint's name, or `NAME:N` to end only at its Nth call; None disarms.

    Raises:
        UnknownFailpoint: no failpoint has that name.
    """
    global _armed  # noqa: PLW0603 - a disarmed failpoint costs one look at this variable
    name, _, number = (chosen or "").partition(":")
    if chosen and name not in POINTS:
        raise UnknownFailpoint(f"LOCKBOX_FAILPOINT: there is no {name}; lockbox/failpoints.py lists them")
    _armed = _ArmedFailpoint(name, int(number or 1)) if chosen else None


def failpoint(name: str) -> None:
    """End this process at once, as a crash would, if this failpoint is armed."""
    if _armed is not None and _armed.name == name:
        _end(_armed)


def mark(name: str) -> str:
    return f"failpoint reached: {name}"


def _end(here: _ArmedFailpoint) -> None:
    here.left -= 1
    if here.left == 0:
        os.write(2, f"{mark(here.name)}\n".encode())
        os._exit(KILLED)
