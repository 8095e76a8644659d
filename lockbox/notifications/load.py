"""Reading what claimed notifications have to say: each with its letter where it is about a request."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import Session

from lockbox.audit import closed_windows
from lockbox.audit.closed_windows import ClosedWindow
from lockbox.identity.roles import Mode
from lockbox.notifications import delivery_status, load_account, request_mail
from lockbox.notifications.audience import PROMPTS, REPORT, type_of
from lockbox.notifications.models import Channel
from lockbox.notifications.request_mail import EarlierRequest, MailWording, RequestMail

Item = tuple[Row[Any], RequestMail | None]
Wordings = load_account.Wordings

READ = text("""
SELECT n.id, n.channel, n.template, n.until_at, n.attempts, e.at, e.deadline_at, e.action, e.from_state, e.to_state,
    e.actor_id, e.actor_role, e.body, r.mode, coalesce(p.time_zone, 'UTC') AS time_zone,
    r.id AS request_id, r.state, r.service, coalesce(r.granted_resources, r.resources) AS resources,
    coalesce(r.granted_actions, r.actions) AS actions, r.reason_code, r.justification, r.case_ref,
    r.access_window, r.requester_id, t.name AS tenant, t.slug, t.id AS tenant_id, q.name AS requester,
    p.id AS recipient_id, coalesce(p.name, w.name) AS recipient_name,
    coalesce(x.email, p.email, w.email) AS recipient_address, w.id IS NOT NULL AS is_copy,
    p.disabled_at IS NOT NULL OR (p.id IS NOT NULL AND NOT EXISTS (SELECT FROM memberships m
        WHERE m.person_id = p.id AND (m.tenant_id IS NULL OR m.tenant_id = n.tenant_id)))
        OR x.removed_at IS NOT NULL OR w.removed_at IS NOT NULL AS recipient_disabled,
    h.url, h.secret, h.disabled_at AS endpoint_disabled,
    EXISTS (SELECT FROM decisions d WHERE d.request_id = r.id AND d.person_id = p.id) AS has_decided,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'name') AS actor_name,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'comment') AS comment,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'address' AND a.side = p.side)
        AS address,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'user_agent' AND a.side = p.side)
        AS user_agent
FROM notifications n
JOIN events e ON e.id = n.event_id JOIN requests r ON r.id = n.request_id JOIN tenants t ON t.id = n.tenant_id
JOIN people q ON q.id = r.requester_id
LEFT JOIN people p ON p.id = n.person_id LEFT JOIN endpoints h ON h.id = n.endpoint_id
LEFT JOIN people a ON a.id = e.actor_id
LEFT JOIN addresses x ON x.id = n.address_id LEFT JOIN observers w ON w.id = n.observer_id
WHERE n.id = ANY(:ids) ORDER BY n.id
""")


def read(session: Session, claimed: Sequence[UUID], at: datetime, wordings: Wordings) -> Iterator[Item]:
    """Read notifications: each with its letter where it is about a request, without one where it is a memo."""
    rows = session.connection().execute(READ, {"ids": claimed}).all()
    worded = wordings(session, [row.request_id for row in rows])
    prompts = [row.id for row in rows if row.template in PROMPTS and row.channel == Channel.MAIL]
    before = request_mail.read(session, prompts)
    windows = closed_windows.read(session, list({row.request_id for row in rows if row.template == REPORT}))
    for row in rows:
        window = windows.get(row.request_id) if row.template == REPORT else None
        yield row, _request_mail(row, at, worded[row.request_id], before.get(row.id, ()), window)
    if len(rows) < len(claimed):
        yield from ((row, None) for row in load_account.read(session, claimed))


def _request_mail(
    row: Row[Any], at: datetime, wording: MailWording, before: Sequence[EarlierRequest], window: ClosedWindow | None
) -> RequestMail:
    return RequestMail(
        notification_id=row.id,
        template=row.template,
        now=at,
        at=row.at,
        deadline_at=row.deadline_at,
        action=row.action,
        to_state=row.to_state,
        actor_id=row.actor_id,
        actor_name=row.actor_name,
        actor_role=row.actor_role,
        comment=row.comment,
        event_type=type_of(row.action, row.from_state),
        request_id=row.request_id,
        tenant=row.tenant,
        slug=row.slug,
        tenant_id=row.tenant_id,
        mode=Mode(row.mode),
        requester=row.requester,
        requester_id=row.requester_id,
        service=row.service,
        resources=row.resources,
        actions=row.actions,
        reason_code=row.reason_code,
        justification=row.justification,
        case_ref=row.case_ref,
        access_window=row.access_window,
        recipient_id=row.recipient_id,
        recipient_name=row.recipient_name or "",
        recipient_address=row.recipient_address or "",
        wording=replace(wording, link=False) if row.is_copy else wording,
        is_copy=row.is_copy,
        time_zone=row.time_zone,
        address=row.address,
        user_agent=row.user_agent,
        earlier=before,
        in_vain=_undelivered_count(row),
        closed=window,
    )


def _undelivered_count(row: Row[Any]) -> str:
    """Return how many were asked where the event says that none of them could be told."""
    facts = json.loads(row.body)
    if row.template == "unreached":
        return delivery_status.undelivered_sentence(row.from_state, facts["unreached"])
    return delivery_status.undelivered_sentence(row.from_state, facts["asked"]) if facts.get("nobody_told") else ""
