"""The subjects of mails about a request, by the template."""

from lockbox.notices.audience import COPIED, RECEIPT, REPORT

SUBJECTS = {
    "reviewing": "Review needed: {requester} asks for {service} at {tenant}",
    "pending": "Your answer is needed: access to {service} asked by {requester}",
    COPIED: "Copy: access to {service} at {tenant} asked by {requester}",
    "active": "Access to {service} at {tenant} is open",
    "denied": "Denied: access to {service} at {tenant}",
    "cancelled": "Withdrawn by vendor: access to {service} at {tenant}",
    "timed_out": "No answer in time: access to {service} at {tenant}",
    "completed": "Given back: access to {service} at {tenant}",
    "revoked": "Closed early: access to {service} at {tenant}",
    "expired": "Time over: access to {service} at {tenant}",
    "review_reminder": "Reminder, {left} left: {requester} asks for {service} at {tenant}",
    "answer_reminder": "Reminder, {left} left: access to {service} asked by {requester}",
    "closing": "Closes in {left}: access to {service} at {tenant}",
    "unreached": "No approver could be reached, {left} left: access to {service} asked by {requester}",
    REPORT: "Report: access to {service} at {tenant} has closed, {found}",
    RECEIPT: "Receipt: {actor} {decided} access to {service} at {tenant}",
}
NOBODY_TOLD = "Nobody could be told: access to {service} at {tenant}"
