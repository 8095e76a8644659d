"""The subjects of mails about a request, by the template."""

from lockbox.notifications import states
from lockbox.notifications.audience import COPIED, RECEIPT, REPORT
from lockbox.notifications.states import SAYINGS

ENDINGS = ("denied", "cancelled", "timed_out", "completed", "revoked", "expired")
SUBJECTS = {
    "reviewing": "Review needed: {requester} asks for {service} at {tenant}",
    "pending": "Your answer is needed: access to {service} asked by {requester}",
    COPIED: "Copy: access to {service} at {tenant} asked by {requester}",
    "active": "Access to {service} at {tenant} is open",
    "review_reminder": "Reminder, {left} left: {requester} asks for {service} at {tenant}",
    "answer_reminder": "Reminder, {left} left: access to {service} asked by {requester}",
    "closing": "Closes in {left}: access to {service} at {tenant}",
    "unreached": "No approver could be reached, {left} left: access to {service} asked by {requester}",
    REPORT: "Report: access to {service} at {tenant} has closed, {found}",
    "question": "A question to you: access to {service} at {tenant}",
    "review_question": "A question to you: access to {service} at {tenant}",
    "answer": "Your question was answered: access to {service} at {tenant}",
    "review_answer": "Your question was answered: access to {service} at {tenant}",
    RECEIPT: "Receipt: {actor} {decided} access to {service} at {tenant}",
    **{name: f"{SAYINGS[name].others}: access to {{service}} at {{tenant}}" for name in ENDINGS},
}
NOBODY_TOLD = f"{SAYINGS[states.NOBODY_TOLD].others}: access to {{service}} at {{tenant}}"
