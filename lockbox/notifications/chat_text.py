"""The wording of chat messages; names in braces are placeholders."""

REQUEST = "A request for access to *{service}* at {tenant}"
ACCESS = "Access to *{service}* at {tenant}"
CHAT_SENTENCES = {
    "request.review_denied": f"{REQUEST} was denied in the vendor's review.",
    "request.denied": f"{REQUEST} was denied.",
    "request.cancelled": f"{REQUEST} was cancelled.",
    "request.timed_out": f"{REQUEST} timed out.",
    "request.completed": f"{ACCESS} was completed.",
    "request.revoked": f"{ACCESS} was revoked.",
    "request.expired": f"{ACCESS} has expired.",
    "request.begun": f"{ACCESS} is open now.",
    "request.held_back": f"{ACCESS} is held back.",
    "request.closing": f"{ACCESS} ends soon.",
    "request.unreached": f"{REQUEST} is waiting for an answer, and none of the approvers could be notified.",
    "request.break_glass": f"BREAK-GLASS: {ACCESS} was opened without the customer's approval.",
    "request.after_review_reminded": f"BREAK-GLASS: {ACCESS} still needs a finding: was it justified?",
    "request.after_review_overdue": f"BREAK-GLASS: a finding is overdue. {ACCESS} had no approval.",
    "request.after_review": f"BREAK-GLASS: the customer has given a finding. {ACCESS} had no approval.",
    "request.question": "A question was asked about access to *{service}* at {tenant}.",
    "request.answer": "A question about access to *{service}* at {tenant} was answered.",
    "request.connection_opened": f"{ACCESS} was opened at the target.",
    "request.connection_open_failed": f"{ACCESS} could not be opened at the target yet. It is tried again.",
    "request.connection_closed": f"{ACCESS} was closed at the target, and checked.",
    "request.connection_close_failed": (
        f"{ACCESS} could not be closed at the target: it may still be in use there. "
        "It is tried again until the target says that it is closed."
    ),
}
"""Sentences for a chat, by event type; other events have a sentence for the state that they led to."""
CHAT_STATES = {
    "reviewing": f"{REQUEST} is waiting for the vendor's review.",
    "pending": f"{REQUEST} is waiting for your approval.",
    "active": f"{ACCESS} is open.",
}
CHAT_OPENS_LATER = f"{ACCESS} was approved, and opens later."
CHAT_OPENS = "Opens at"
CHAT_STARTS = {
    "request.reminded": "Reminder: ",
    "request.escalated": "Escalated: ",
}
CHAT_VOTE = f"{REQUEST} was approved and needs more approvals."
CHAT_BY = {
    "request.approved": "Approved by",
    "request.denied": "Denied by",
    "request.revoked": "Revoked by",
    "request.break_glass": "Opened by",
}
CHAT_NOBODY_NOTIFIED = f"{REQUEST} timed out: nobody could be notified."
CHAT_DEADLINES = {"reviewing": "Review it by", "pending": "Answer by", "active": "Open until"}
CHAT_ACTOR = "{did} {name}"
CHAT_DEADLINE = "{what} {time}"
CHAT_FACT = "{label}: {text}"
CHAT_MIXED = "Careful: the name of a resource mixes alphabets. Check each letter before you decide."
CHAT_WHY = "Why: {why}"
CHAT_SOURCE = "As of {time}. Request {number}"
CHAT_TEST = "This is a test: notifications of Lockbox arrive here."
CHAT_SIGN_IN, CHAT_OPEN = "Sign in", "Open the request"
