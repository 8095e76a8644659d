"""Mails about requests, rendered when they are sent, from the immutable event that caused them."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parseaddr
from functools import partial
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from config.traces import NOWHERE, CallOrigin
from lockbox.facts.ask import Ask
from lockbox.facts.enumerations import Mode
from lockbox.facts.fact import MAIL, lines
from lockbox.facts.labels import label_text
from lockbox.facts.requester import Requester
from lockbox.facts.window import Window
from lockbox.identity.time_zones import clock_time, deadline
from lockbox.notifications import mail_text, request_wording, window_report
from lockbox.notifications.audience import AFTER_REVIEWS, BREAK_GLASS, CONVERSED, OPERATED, PROMPTS, RECEIPT, REPORT
from lockbox.notifications.earlier_requests import EarlierRequest
from lockbox.notifications.mail_text import counted, duration
from lockbox.notifications.models import Channel
from lockbox.notifications.senders.protocol import OutgoingMail
from lockbox.notifications.target_failure import TargetFailure
from lockbox.notifications.window_report import ClosedWindow
from lockbox.text_rules import flagged, one_line, prose

LONGEST_SUBJECT = 200
WIDTH, LABEL = 100, 17
"""The width of the lines of a plain text, and of its column of labels."""
TEMPLATES = Environment(
    loader=PackageLoader("lockbox.notifications"),
    autoescape=select_autoescape(["html"]),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    auto_reload=False,
)
WRAPPER = textwrap.TextWrapper(WIDTH - LABEL, break_long_words=False, break_on_hyphens=False)
LONG = 600
LONGEST_AGENT = 256
LONGEST_RESOURCE = 256
NAMED_BY = frozenset({"active", "denied", "revoked"})
TEMPLATE_FILES = {
    **{name: name for name in ("begun", "held_back", "closing", "unreached", RECEIPT, REPORT, BREAK_GLASS)},
    **dict.fromkeys(AFTER_REVIEWS, "after_review"),
    **dict.fromkeys(("review_reminder", "answer_reminder"), "reminder"),
    **dict.fromkeys(CONVERSED.values(), "question"),
    **dict.fromkeys(OPERATED, "connection"),
    **dict.fromkeys(OPERATED.values(), "target"),
}
"""The template files by template; all other templates use `state_change`, which states the request's outcome."""


@dataclass(frozen=True)
class MailWording:
    """What a policy allows in mails about a request.

    `report` is whether a closed window gets a report. `steps` are the approval steps in order; each step lists how
    many approvers of which groups it needs.
    """

    link: bool = True
    justification: bool = True
    report: bool = True
    steps: Sequence[Sequence[tuple[int, str]]] = ()


@dataclass(frozen=True, kw_only=True)
class LoadedNotification:
    notification_id: UUID
    template: str
    until_at: datetime
    channel: str = Channel.MAIL
    attempts: int = 0
    is_unreachable: bool = False
    is_moot: bool = False
    origin: CallOrigin = NOWHERE


@dataclass(frozen=True, kw_only=True)
class RequestMail(LoadedNotification):
    """Everything that a notification may contain: the event that caused it, and the unchanging facts of its request.

    - `address` and `user_agent` belong to the actor, and are None if the recipient is on the other side.
    - `is_copy` is whether the recipient is an observer, who cannot decide or sign in.
    - `tenant` is the tenant's present name; `requester` is as of `submitted_at`.
    - `in_vain` states how many people were asked, if none of them could be notified.
    - `closed` is the window of a report.
    - `finding` is the customer's finding about break-glass; `overdue_findings` counts other findings that were
      overdue when the window was opened.
    - `held_back` is why the window admits no one, although it has begun.
    """

    now: datetime
    event_id: UUID
    at: datetime
    deadline_at: datetime | None
    action: str
    to_state: str
    actor_id: UUID | None
    actor_name: str | None
    actor_role: str
    comment: str | None
    event_type: str
    request_id: UUID
    tenant: str
    slug: str
    tenant_id: UUID
    mode: Mode
    requester_name: str
    requester_id: UUID
    ask: Ask
    requester: Requester
    window: Window
    recipient_id: UUID | None
    recipient_name: str
    recipient_address: str
    wording: MailWording
    time_zone: str
    is_copy: bool = False
    is_pre_approved: bool = False
    submitted_at: datetime | None = None
    address: str | None = None
    user_agent: str | None = None
    earlier: Sequence[EarlierRequest] = ()
    in_vain: str = ""
    closed: ClosedWindow | None = None
    connection: TargetFailure | None = None
    finding: str | None = None
    finding_due: datetime | None = None
    overdue_findings: int = 0
    held_back: str | None = None

    @property
    def nobody_notified(self) -> bool:
        return self.template == "timed_out" and bool(self.in_vain)

    @property
    def resources(self) -> list[str]:
        return self.window.resources_of(self.ask)

    @property
    def actions(self) -> list[str]:
        return self.window.actions_of(self.ask)

    @property
    def extent(self) -> str:
        if self.window.max_uses is None:
            return duration(self.ask.access_window)
        uses = counted(mail_text.USES, self.window.max_uses)
        return mail_text.EXTENT.format(duration=duration(self.ask.access_window), uses=uses)

    @property
    def opened_until(self) -> datetime:
        """When access would end if it were approved now."""
        return self.ask.would_end(self.now)

    @property
    def opens_later(self) -> bool:
        return self.window.opens_at is not None and self.at < self.window.opens_at

    @property
    def seconds_left(self) -> int:
        """The seconds to the deadline, at least one; above ten minutes, rounded down to whole minutes."""
        left = int((self.deadline_at - self.now).total_seconds()) if self.deadline_at else 0
        return max(left - left % 60 if left > LONG else left, 1)


def portal_address(public_url: str, request_id: UUID) -> str:
    """The address by itself gives no access."""
    return f"{public_url.rstrip('/')}/requests/{request_id}"


def sender_domain(sender: str) -> str:
    return parseaddr(sender)[1].rpartition("@")[2]


def fact(label: str, value: object) -> str:
    """Return a labelled fact; its further lines are indented, so that they cannot pass for other facts."""
    lines = [part for line in str(value).splitlines() or [""] for part in WRAPPER.wrap(line) or [""]]
    return f"{label_text(label):<{LABEL - 1}} " + f"\n{' ' * LABEL}".join(lines)


TEMPLATES.globals |= {"fact": fact, "label_text": label_text}


def render(mail: RequestMail, *, public_url: str, services: Mapping[str, str], sender: str) -> OutgoingMail:
    """Return the mail; its link only leads to a page that asks the user to sign in.

    The host of `public_url` is the domain of every Message-ID.
    """
    domain = urlsplit(public_url).hostname
    said = _said(mail, services)
    said |= {
        "subject": _subject(mail, said),
        "link": portal_address(public_url, mail.request_id),
        "account": f"{public_url.rstrip('/')}/account",
        "operations": f"{public_url.rstrip('/')}/operations",
        "sender_domain": sender_domain(sender),
        "message_domain": domain,
    }
    file = TEMPLATE_FILES.get(mail.template, "state_change")
    return OutgoingMail(
        message_id=f"<{mail.notification_id}@{domain}>",
        thread_id=f"<{mail.request_id}@{domain}>",
        list_id=f"<{mail.slug}.requests.{domain}>",
        to_name=one_line(mail.recipient_name),
        to_address=mail.recipient_address,
        subject=said["subject"],
        text=TEMPLATES.get_template(f"{file}.txt").render(said),
        html=TEMPLATES.get_template(f"{file}.html").render(said),
    )


def _subject(mail: RequestMail, said: Mapping[str, Any]) -> str:
    named = ("requester", "service", "tenant", "decided", "target", "by", "access", "finding_by", "found_of")
    words = {name: said[name] for name in named}
    until = mail_text.OPEN_UNTIL if mail.to_state == "active" else mail_text.ANSWER_BY
    found = window_report.summary(mail.closed) if mail.closed else ""
    if mail.template == "active" and mail.window.opens_at and mail.opens_later:
        subject = mail_text.OPENS_LATER_SUBJECT
        words["by"] = deadline(mail.window.opens_at, mail.now, mail.time_zone)
    elif mail.is_pre_approved:
        subject = mail_text.PRE_APPROVED_SUBJECT
    elif mail.nobody_notified:
        subject = mail_text.NOBODY_NOTIFIED_SUBJECT
    else:
        subject = mail_text.REQUEST_SUBJECTS[mail.template]
    actor = said["actor"] or mail_text.SOMEBODY
    said_of = subject.format(**words, actor=actor, found=found, until=until)
    if mail.ask.severity and mail.template in PROMPTS:
        said_of = f"{mail.ask.severity}: {said_of}"
    return (mail_text.BREAK_GLASS_MARK + said_of if mail.window.break_glass else said_of)[:LONGEST_SUBJECT]


def _said(mail: RequestMail, services: Mapping[str, str]) -> dict[str, Any]:
    time = partial(clock_time, zone=mail.time_zone)
    return {
        "mail": mail,
        "service": services.get(mail.ask.service, mail.ask.service),
        "requester": one_line(mail.requester_name),
        "actor": one_line(mail.actor_name) if mail.actor_name else None,
        "tenant": one_line(mail.tenant),
        "resources": [flagged(one_line(resource, LONGEST_RESOURCE)) for resource in mail.resources],
        "justification": prose(mail.ask.justification),
        "case_ref": _case(mail),
        "duplicate": _duplicate(mail),
        "lines": list(lines(mail.ask, MAIL, reads_why=mail.wording.justification)),
        "comment": prose(mail.comment) if mail.comment else None,
        "opened": mail_text.APPROVED_BY if mail.actor_role == "approver" else mail_text.OPENED_BY,
        "decided": mail_text.DECIDED.get(mail.action, ""),
        "mine": mail.recipient_id == mail.requester_id,
        "own": mail.recipient_id == mail.actor_id,
        "asks": mail.template in ("reviewing", "pending"),
        "acts": mail_text.joined(mail.actions),
        "steps": mail_text.steps(mail.wording.steps),
        "parameters": mail_text.parameters(mail.ask.context or {}),
        "duration": mail.extent,
        **_span(mail, time),
        "left": duration(mail.seconds_left),
        "by": deadline(mail.deadline_at, mail.now, mail.time_zone) if mail.deadline_at else "",
        "finding_by": deadline(mail.finding_due, mail.now, mail.time_zone) if mail.finding_due else "",
        "found_of": mail_text.FINDINGS.get(mail.finding or "", ""),
        "time": time,
        "who_decides": mail_text.ASKED_AFTER if mail.mode is Mode.ENFORCE else mail_text.LEFT_TO_VENDOR,
        "yes": _yes(mail, services.get(mail.ask.service, mail.ask.service)),
        "target": mail.connection.target if mail.connection else "",
        "advice": mail_text.FAILING.get(mail.connection.failing or "", mail_text.IN_LOG) if mail.connection else "",
        "held_back": _held_back(mail, mail.held_back) if mail.held_back else "",
        "located": _located(mail, time),
        "signed_in": _signed_in(mail),
        "outcome": mail_text.OPENS_LATER if mail.opens_later else mail_text.OUTCOMES.get(mail.to_state, ""),
        "remedy": _remedy(mail),
        "earlier": [_before(one, time(one.at)) for one in mail.earlier],
        "address": one_line(mail.address) if mail.address else mail_text.NOT_KNOWN,
        "user_agent": one_line(mail.user_agent, LONGEST_AGENT) if mail.user_agent else mail_text.NOT_KNOWN,
        "knows_origin": bool(mail.address or mail.user_agent),
        **(window_report.said(mail.closed, mail.to_state, mail.now, time) if mail.closed else {}),
    }


def _span(mail: RequestMail, time: Callable[[datetime], str]) -> dict[str, str]:
    if mail.window.extends and mail.ask.not_before:
        more = mail_text.MORE_ACCESS.format(duration=duration(mail.ask.access_window))
        return {"access": more, "span": mail_text.UNTIL.format(time=time(mail.opened_until))}
    span = mail_text.FOR.format(extent=mail.extent)
    if mail.ask.not_before:
        span = mail_text.FROM.format(span=span, time=time(mail.ask.not_before))
    return {"access": mail_text.PLAIN_ACCESS, "span": span}


def _case(mail: RequestMail) -> str | None:
    if not mail.ask.case_ref:
        return None
    case, system = one_line(mail.ask.case_ref), one_line(mail.ask.case_system) if mail.ask.case_system else ""
    where = mail_text.CASE_IN.format(case=case, system=system) if system else case
    said = mail_text.CASE_CHECKS.get(mail.ask.case_check or "", "")
    return f"{where} {said}".strip()


def _duplicate(mail: RequestMail) -> str:
    if not mail.ask.duplicate_of:
        return ""
    why = prose(mail.ask.duplicate_reason) if mail.ask.duplicate_reason and mail.wording.justification else ""
    return f"{mail.ask.duplicate_of}: {why}" if why else str(mail.ask.duplicate_of)


def _held_back(mail: RequestMail, reason: str) -> str:
    tenant, requester = one_line(mail.tenant), one_line(mail.requester_name)
    return request_wording.held_back(reason, tenant=tenant, requester=requester)


def _located(mail: RequestMail, time: Callable[[datetime], str]) -> str:
    if mail.requester.directory_as_of is None:
        return ""
    entity = one_line(mail.requester.employing_entity) if mail.requester.employing_entity else None
    said = request_wording.located(entity, mail.requester.office_country, mail.requester.physical_country)
    return request_wording.AS_OF.format(said=said, time=time(mail.requester.directory_as_of))


def _signed_in(mail: RequestMail) -> str:
    if mail.requester.sign_in is None or mail.submitted_at is None:
        return ""
    return request_wording.signed_in(
        mail.requester.sign_in, mail.requester.sign_in_means, mail.requester.signed_in_at, mail.submitted_at
    )


def _yes(mail: RequestMail, service: str) -> tuple[str, str]:
    opens = mail_text.OPENS.format(acts=mail_text.joined(mail.actions), service=service, extent=mail.extent)
    if mail.template == "pending":
        return mail_text.APPROVING_OPENS, opens
    if mail.mode is Mode.ENFORCE:
        return mail_text.ENDORSING_ASKS, mail_text.TO_OPEN.format(opens=opens)
    return mail_text.ENDORSING_OPENS, opens


def _remedy(mail: RequestMail) -> str:
    if mail.to_state == "pending" and mail.action == "endorse":
        remedy = mail_text.ASK_TO_DENY
    else:
        remedy = mail_text.REMEDIES.get(mail.to_state, "")
    if mail.recipient_id != mail.actor_id:
        return remedy
    return mail_text.SECURE_ACCOUNT.format(remedy=remedy)


def _before(one: EarlierRequest, when: str) -> dict[str, str]:
    by = one_line(one.actor) if one.actor and one.state in NAMED_BY else ""
    number = str(one.request_id)
    return {
        "number": number,
        "who": one_line(one.requester),
        "ended": mail_text.ENDED[one.state],
        "by": by,
        "when": when,
    }
