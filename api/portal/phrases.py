"""The wording of pages that is not in their templates.

To translate the portal, translate this file and `templates/`.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import floor

from catalogue.issuers import IdentityProvider
from lockbox.identity.time_zones import local, wall_clock
from lockbox.safe_http import FetchFailure
from lockbox.text_rules import flagged

# Titles of refusal pages, by status.
TITLES = {
    403: "You do not have access to this",
    404: "Page not found",
    413: "That is too large",
    415: "This request is not valid",
    429: "Too many attempts",
    503: "Try again in a moment",
}
WENT_WRONG = "Something went wrong"

VENDOR = "the vendor"
"""The vendor's name if none is set."""

# The menu.
APPROVALS = "Approvals"
REVIEWS = "Reviews"
REQUEST_ACCESS = "Request access"
MY_REQUESTS = "My requests"
OPEN_WINDOWS = "Open windows"
HISTORY = "History"
AUDIT_LOG = "Audit log"
STATISTICS = "Statistics"
ORGANISATION = "Your organisation"
OPERATIONS = "Operations"
GATES = "Gates"
DATA = "Data"
EXCLUSIONS = "Exclusions"
ACCESS_REVIEW = "Access review"
YOUR_ACCOUNT = "your account"

# Things that do not exist, and mistakes in any form.
NO_REQUEST = "There is no such request."
NO_OWN_REQUEST = "There is no such request of yours."
NO_TENANT = "There is no such tenant."
NO_WEBHOOK = "There is no such webhook."
NO_FILE = "There is no such file."
NO_PAGE = "There is no such page."
NO_SCHEMA = "There is no such schema."
NOT_THE_VENDORS_EXCLUSIONS = "This page is for operators and auditors of the vendor."
TYPE_THE_SLUG = "Type the short name {slug} to confirm."
NO_DAYS = "Write a whole number of days, or nothing."
NO_SECTION = "There is no such section."
NO_PROVIDER = "There is no such identity provider. Choose one from the sign-in page."
PROVIDER_UNAVAILABLE = "You cannot sign in with {title} now: {why}. {whom}"
PROVIDER_TROUBLE = {
    FetchFailure.FORM: "Lockbox does not call its address",
    FetchFailure.NAME: "Lockbox cannot look up the name of its address",
    FetchFailure.BUSY: "too many people are signing in",
    FetchFailure.NOT_PUBLIC: "its address is in a private network that Lockbox may not call",
    FetchFailure.CONNECTION: "Lockbox cannot connect to it",
    FetchFailure.CERTIFICATE: "Lockbox does not trust its certificate",
    FetchFailure.TIME: "it does not answer in time",
    FetchFailure.ANSWER: "it does not answer as an identity provider has to",
}
TRY_AGAIN = "Try again in a moment."
TURN_TO_OPERATORS = "If it stays so, ask the operator of this installation{of}."
TURN_TO_PROVIDER = "If it stays so, ask whoever runs your organisation's identity provider."
TOPICS = "Name topics such as list, or request: and the id of a request, {most} at most."
NOT_ACCEPTED = "Not accepted: {why}."
NO_TIME = "Choose until when: {why}."
NO_START = "Choose when access is to begin: {why}."
NO_DURATION = "Choose how much more time you need."

# Requests: the form, decisions, lists.
ENGINEERS_ONLY = "Only engineers of the vendor can request access."
LOOK_AGAIN = "Correct the fields that are marked below."
REQUEST_ADVICE = {
    "tenant": "Name the customer by its short name, such as contoso.",
    "service": "Choose a service.",
    "actions": "Choose at least one action.",
    "access_window": "Choose a duration.",
    "not_before": "Choose a day and a time, or neither.",
    "max_uses": "Write a whole number from 1 to 1000, or nothing.",
    "case_url": "Write the whole https address of the case's page, or nothing.",
}
FROM_THE_LIST = "Choose a {label} from the list."
FROM_THE_LIST_OR_NONE = "Choose a {label} from the list, or none."
LINE = "line {number}: "
TERMS_NOT_ACCEPTED = "Your comment, the time or the uses were not accepted: {why}."
TERMS_NOT_NUMBERS = "The time or the uses were not accepted. Write a whole number of uses, or nothing."
SIGNATURE_OVER = "This signature was used, has expired, or was begun in another browser. Approve again."
NOTHING_CHOSEN = "Choose at least one request."
TOO_MANY_CHOSEN = "Choose at most {most} requests at a time."
NOT_FROM_THE_LIST = "Choose requests from the list."
NO_REASON = "Give a reason: it is recorded with each request."
HISTORY_COLUMNS = (
    ("Request", "Customer", "State", "Engineer"),
    ("Employed by", "Office", "Located in", "Signed in"),
    ("Justification", "Seconds requested", "Submitted", "Opened", "Closed", "Deadline"),
)
"""The columns before the facts of the request, and the columns after them."""
NO_STATE = "There is no such state. Choose one from the list."
NO_SERVICE = "There is no such service. Choose one from the list."
NO_LEVEL = "There is no such level. Choose one from the list."
DAYS_REVERSED = "The first day is after the last day. Choose an earlier first day."
DAY_TOO_OLD = "Choose a day of this age."
NO_DAY = "Write days as year, month and day, such as 2026-11-24."
TOO_LONG_A_SEARCH = "Write the name or the search words on one line of at most 200 characters."

# Signing in and the account.
NO_ADDRESS = "Write your whole mail address, such as anna@contoso.example."
NO_MAIL = "Codes by mail are switched off here; sign in another way."
BY_ISSUER = "You sign in with your identity provider here. A mailed code is not accepted in its place."
SIGNED_OUT = "You were signed out, and nothing was changed."
NO_PREFETCH = "This page cannot be prefetched. Open it with a click."
PASSKEY_OVER = "This was used, has expired, or was begun in another browser. Add the passkey again."
NO_NAME = "Choose a name for the {what} on one line, in plain letters."
ONE_ADDRESS = "Write one mail address, such as ann@contoso.example."
PASSKEY, TOKEN = "passkey", "token"
UNKNOWN_BROWSER = "An unknown browser"
BROWSER_ON = "{browser} on {system}"

# Pages of an organisation.
FORM_LABELS = {
    "name": "Name",
    "address": "Mail address",
    "roles": "Roles",
    "url": "Address",
    "description": "What it is",
    "format": "Form",
    "event_types": "Events",
    "overlap_hours": "Hours in which the old secret also signs",
    "mode": "Who decides",
    "service": "On",
    "comment": "Why",
    "text": "Text",
    "reason": "Reason",
    "justification": "Justification",
    "resource": "Resources",
    "actions": "Actions",
    "reason_code": "Reason",
    "access_window": "Longest window",
    "max_uses": "How many windows",
}
CONSENT_IN_THE_PAST = "Choose a time that is still to come: until then the vendor would decide."
NOT_JSON = "this is not JSON: look for a comma or a quote that is missing or one too many"
NOT_JSON_AT = "line {line}, column {column}: " + NOT_JSON
IN_PLACE = "in {place}: {what}"
BAD_POLICY = "This is not a valid policy."
NO_NUMBER = "write a whole number"
NO_PERCENTS = "write whole numbers with commas between them, such as 50, 83"
OF_GROUP = "The group {name}: {what}"
TIER_ASKED = "Notified"
TIER_AGREES = "Must also agree"
TIER_STEP = "Step"
NO_NUMBER_OF_GROUP = "“{label}” of the group {name}: write a whole number up to {most}"
SAME_GROUP_NAME = "Two groups have the same name; give one of them another."
NO_GROUP_NAME = "Give the new group a name, such as legal, or leave its people out."
BAD_GROUP_NAME = "A group cannot be called “{name}”: {why}, as in legal-desk."
CHOOSE = "Choose {what}."
SAY_WHEN = "Say {what}: {why}."
DELEGATE, DELEGATE_FOR = "who stands in", "for whom"
DELEGATE_FROM, DELEGATE_UNTIL = "from when", "until when"
PRE_APPROVAL_UNTIL = "until when"

# The playground of `make run`.
NO_DEMO_USER = "There is no demo user of that name. Choose one from the page."
DEMO_USERS_ONLY = "Only demo users can be chosen. Choose one from the page."
DEMO_TOKENS_EXPIRED = "The demo users' tokens have expired after a day. Stop `make run` and start it again."
NO_CAUGHT_MAIL = "There is no such mail."

# The audit log, and the verification of its exports.
THIS_ORGANISATION = "this organisation"
THE_VENDOR = "the vendor itself"
SEARCH_BY_ID = "Search for a {what} by its id: copy it from an event."
NOT_IN_LIST = "There is no such {what}: choose one from the list."
NO_SEARCH_LINE = "Write the search words on one line, without invisible characters."
NO_SPAN = "Choose from or until when: {why}."
NO_SIZE = "The size of an earlier checkpoint is the whole number on its second line."
NOT_A_READER = "Only a tenant's admins and auditors, and the vendor's auditors, can read the audit log."
NO_EXPORT = "Choose the file of an export: it ends with .ndjson."
TOO_MANY_KEY_FILES = "Choose at most {most} files of approvers' keys."
TOO_LONG_A_KEY_FILE = "A file of approvers' keys has at most {most} MB: choose the one that was exported."
TOO_MANY_KEYS = "Give the keys that you trust, one a line, and at most {most}."
UNREADABLE = "It cannot be read: {why}."
TOO_SLOW_A_FILE = "The file took too long to arrive; send a smaller one, or verify it offline."
TOO_LONG_A_FILE = "Verifying this file takes too long here. Use `lockbox audit verify` instead."
OWN_FILE_FIRST = "One of your files is being verified. Wait until it is done, then send the next one."
COLLEAGUES_FIRST = "Your colleagues' files are being verified. Try again in a moment."
OTHERS_FIRST = "Other files are being verified; try again in a moment."
THE_FILE = "the file"
VERIFY_A_FILE = "verify a file"
"""The action in the message about too many attempts."""

# Charts.
NOT_KNOWN = "not known"
NO_ANSWER = "no answer"
YET = "{what} yet"
THROUGHOUT = "{what} throughout"
AT_MOST = "{name}: at most {value}, {when}."
IN_ALL = "{name}: {value} throughout."
UNKNOWN = "{name}: {what}."
HOUR, HOUR_HEADING, IN_HOUR = "hour", "From, UTC", "in the hour from {:%H:%M} UTC"
MONTH, MONTH_HEADING, IN_MONTH = "month", "Month, UTC", "in {:%B %Y}"
SUBMITTED = "Submitted"
DECIDED = "Decided"
SENT = "Sent"
DEAD = "Dead"
NOTIFICATIONS = "Notifications"
SCHEDULE_LAG, WORST_SCHEDULE_LAG = "Schedule lag", "Worst schedule lag"
SEAL_LAG, WORST_SEAL_LAG = "Seal lag", "Worst seal lag"
REQUESTS = "Requests"
APPROVED = "Approved"
DENIED = "Denied"
TIMED_OUT = "Timed out"
COMPLETED = "Completed"
EXPIRED = "Expired"
REVOKED = "Revoked"
REQUESTS_AND_ANSWERS = "Requests and answers"
HOW_ACCESS_ENDED = "How access ended"
MEDIAN_ANSWER = "Median time to answer"
ACCESS_OPEN, HOURS_OPEN = "Access open", "Hours of open access"

# The API reference: types, and the bounds of their values.
OR = " or "
LIST_OF = "list of {what}"
ANY_VALUE = "any value"
ITEMS, CHARACTERS = "items", "characters"
AT_LEAST = "at least {low:g}"
SPAN = "{low:g} to {high:g}"

# Counts and times of day.
MOST_QUOTED = 48
"""The longest resource that a sentence quotes. A longer one is only counted."""

UNITS = {"d": 86400, "h": 3600, "min": 60, "s": 1}
PAST, FUTURE, NOW = "{span} ago", "in {span}", "now"
LEFT, OVER = "{span} left", "over"
WEEK = 7 * UNITS["d"]
"""From this distance on, a time is given in days, without hours."""

SECONDS = {"hour": 3600, "minute": 60, "second": 1}


def things(resources: Sequence[str]) -> str:
    """Such as `mailbox:anna@contoso.example` or `2 mailboxes`."""
    if len(resources) == 1 and len(named := flagged(resources[0])) <= MOST_QUOTED:
        return named
    kinds = {resource.partition(":")[0] for resource in resources}
    return counted(len(resources), kinds.pop() if len(kinds) == 1 else "resource")


def counted(number: int, noun: str) -> str:
    """Such as `1 mailbox` or `2 mailboxes`."""
    return f"{number} {noun if number == 1 else _plural(noun)}"


def _plural(noun: str) -> str:
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in tuple("aeiou"):
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def full_duration(seconds: int) -> str:
    """Such as `15 minutes` or `1 hour 30 minutes`."""
    parts = []
    for noun, size in SECONDS.items():
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(counted(count, noun))
    return " ".join(parts)


def time_of_day(moment: datetime, at: datetime, zone: str) -> str:
    """Such as `22:00 today` or `08:00 on 30 November`."""
    there, here = local(moment, zone), local(at, zone)
    days = {
        here.date(): "today",
        here.date() + timedelta(days=1): "tomorrow",
        here.date() - timedelta(days=1): "yesterday",
    }
    year = "" if there.year == here.year else f" {there.year}"
    return f"{wall_clock(there)} {days.get(there.date()) or f'on {there.day} {there:%B}{year}'}"


def away(moment: datetime, at: datetime) -> str:
    """Such as `in 2 h 5 min`, `3 d ago` or `now`. `portal.js` keeps the text up to date."""
    seconds = floor((moment - at).total_seconds())
    apart = abs(seconds)
    said = _span(apart, ("d", "h", "min") if apart < WEEK else ("d",))
    return (PAST if seconds < 0 else FUTURE).format(span=said) if said else NOW


def left(until: datetime, at: datetime) -> str:
    """Such as `12 min 5 s left`. `portal.js` keeps the text up to date."""
    seconds = floor((until - at).total_seconds())
    return LEFT.format(span=_span(seconds, tuple(UNITS))) if seconds > 0 else OVER


def _span(seconds: int, units: Sequence[str]) -> str:
    parts = []
    for unit in units:
        count, seconds = divmod(seconds, UNITS[unit])
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def provider_unavailable(issuer: IdentityProvider, trouble: FetchFailure, vendor: str) -> str:
    """A tenant repairs its own provider, so the text does not refer to the operators."""
    if trouble is FetchFailure.BUSY:
        whom = TRY_AGAIN
    elif issuer.tenant is None:
        whom = TURN_TO_OPERATORS.format(of=f" at {vendor}" if vendor else "")
    else:
        whom = TURN_TO_PROVIDER
    return PROVIDER_UNAVAILABLE.format(title=issuer.title, why=PROVIDER_TROUBLE[trouble], whom=whom)
