"""The page of events: what webhooks are called with, and what the audit log records."""

from collections.abc import Mapping

from lockbox.admin.webhooks import OF_TENANTS
from lockbox.audit.wording import WORDS
from lockbox.notifications.account_mail import CHECKPOINT_TYPE, INVARIANT_TYPE
from lockbox.notifications.audience import EVENTS
from lockbox.notifications.webhook import TEST_TYPE
from reference.markdown import head, table

INTRODUCTION = """
Each action is an event of the audit log, and most events are sent to webhooks too. How a receiver verifies and orders
calls is in [webhooks.md](../webhooks.md), and how exports of the log are built in [audit-format.md](../audit-format.md).
"""
OF_REQUESTS = """
## Webhooks: requests

`data.state` is the state after the event. A customer's webhooks are called for a request once the customer is asked. A
request that ends in the vendor's review is sent to the vendor's webhooks only.

"""
REQUEST_EVENTS = {
    "request.submitted": "An engineer submitted a request. `data.state` is `reviewing`, or `pending` where the vendor does not review.",
    "request.endorsed": "A manager of the vendor endorsed it: the customer is asked, or access is open in the modes `observe` and `off`.",
    "request.break_glass": "A manager opened it by break-glass, without the customer's approval: see [break-glass](../how-to/break-glass.md).",
    "request.review_denied": "A manager of the vendor denied it in the vendor's review.",
    "request.approved": "An approver approved. `data.state` is `active` once the quorum is met, else `pending`.",
    "request.denied": "An approver or an admin of the customer denied it.",
    "request.cancelled": "The requester cancelled it, or it ended because the requester was disabled.",
    "request.timed_out": "No one decided in time.",
    "request.completed": "The requester completed the work and ended the access.",
    "request.revoked": "Access was revoked.",
    "request.expired": "The access window ended.",
    "request.reminded": "The approvers were reminded.",
    "request.escalated": "More approvers were asked.",
    "request.begun": "An access window that was approved for a later start is open.",
    "request.held_back": "An access window that was approved for a later start grants no access. `data.held_back` says why.",
    "request.closing": "The access window ends soon.",
    "request.unreached": "None of the approvers could be notified.",
    "request.question": "Someone asked a question about it.",
    "request.answer": "Someone answered a question about it.",
    "request.after_review": "The customer said whether access by break-glass was justified.",
    "request.after_review_reminded": "The customer's finding about access by break-glass is due a day after that access was opened.",
    "request.after_review_overdue": "That finding is overdue. Sent again each day until it is given.",
    "request.connection_opened": "A target opened the access ([connectors](../connectors.md)).",
    "request.connection_open_failed": "A target has not opened it in three tries. `data.connection.failing` says why; it is tried again.",
    "request.connection_closed": "A target closed the access, and confirmed that it is closed.",
    "request.connection_close_failed": "A target has not closed it in three tries. It is tried again until the target says that it is closed.",
}
"""What each type means for a receiver."""
OTHER_EVENTS = {
    CHECKPOINT_TYPE: "The audit log has a new checkpoint.",
    INVARIANT_TYPE: "An invariant is broken. Sent to the vendor's webhooks only.",
    TEST_TYPE: "Someone tested the webhook.",
}
OF_THE_LOG = """
## Audit log

These are all actions that the log records. Pages and the command line write them after the name of the actor.

### Requests

"""
OF_A_TENANT = """
### Changes at a tenant

Each is also sent to the tenant's webhooks, as `tenant.` and the action.

"""
IN_THE_LOG_ALONE = """
### Not sent to webhooks

"""


def page() -> str:
    """Return the page."""
    tenants = {action: words for action, words in WORDS.items() if f"tenant.{action}" in OF_TENANTS}
    return "".join(
        (
            head("Events", INTRODUCTION),
            OF_REQUESTS,
            _types(REQUEST_EVENTS),
            "\n## Webhooks: everything else\n\n",
            _types(OTHER_EVENTS),
            OF_THE_LOG,
            table(
                ("action", "in words", "webhook"),
                (
                    (f"`{action}`", WORDS[action], f"`request.{EVENTS[action]}`")
                    for action in WORDS
                    if action in EVENTS
                ),
            ),
            OF_A_TENANT,
            _actions(tenants),
            IN_THE_LOG_ALONE,
            _actions({action: WORDS[action] for action in WORDS if action not in EVENTS and action not in tenants}),
        )
    )


def _actions(words: Mapping[str, str]) -> str:
    return table(("action", "in words"), ((f"`{action}`", text) for action, text in words.items()))


def _types(meanings: Mapping[str, str]) -> str:
    return table(("type", "what happened"), ((f"`{name}`", meaning) for name, meaning in meanings.items()))
