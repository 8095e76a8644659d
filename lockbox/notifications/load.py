"""Claimed notifications, with everything that their mails and webhooks may contain."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from config.traces import CallOrigin
from lockbox.audit.events import CLOCK
from lockbox.database import Database, UnitOfWork
from lockbox.facts.ask import Ask
from lockbox.facts.enumerations import Mode
from lockbox.facts.fact import read as read_part
from lockbox.facts.requester import Requester
from lockbox.facts.window import Window
from lockbox.identity.keyring import CodeKeys
from lockbox.identity.roles import Role
from lockbox.notifications import checkpoint_digest, delivery_status, earlier_requests, mailed_codes, window_report
from lockbox.notifications.account_mail import (
    DELEGATE_BEGINS,
    AccountMail,
    DelegatedRequest,
    facts_of,
    named_in,
)
from lockbox.notifications.audience import CONNECTED, OPEN, PROMPTS, REPORT, is_moot, type_of
from lockbox.notifications.checkpoint_digest import Keys
from lockbox.notifications.earlier_requests import EarlierRequest
from lockbox.notifications.models import Channel
from lockbox.notifications.request_mail import LoadedNotification, MailWording, RequestMail
from lockbox.notifications.target_failure import TargetFailure
from lockbox.notifications.window_report import ClosedWindow
from lockbox.sql import columns

Wordings = Callable[[UnitOfWork, Sequence[UUID]], Mapping[UUID, MailWording]]
FROM_ROW = (
    *("notification_id", "template", "until_at", "channel", "attempts", "is_unreachable"),
    *("event_id", "at", "deadline_at", "action", "to_state", "actor_id", "actor_name", "actor_role", "comment"),
    *("request_id", "tenant", "slug", "tenant_id", "requester_name", "requester_id", "submitted_at"),
    *("recipient_id", "recipient_name", "recipient_address", "is_copy", "time_zone", "address", "user_agent"),
    *("finding", "finding_due"),
)
"""The fields of a `RequestMail` that are columns of READ, except the parts of the request."""
MOST_WAITING = 50
PRE_APPROVED = "pre_approval_id"
"""The member of an event that names the pre-approval which opened the window."""
OURSELVES = "Lockbox"
# Whether the offer of a mail about no request was taken, was withdrawn, has run out, or is of no more use to anyone.
IS_SETTLED = """CASE WHEN i.id IS NOT NULL THEN i.accepted_at IS NOT NULL OR i.withdrawn_at IS NOT NULL
            OR i.expires_at <= clock_timestamp()
        WHEN s.id IS NOT NULL THEN s.used_at IS NOT NULL OR s.expires_at <= clock_timestamp()
            OR w.id IS NULL OR w.disabled_at IS NOT NULL
        WHEN f.id IS NOT NULL THEN f.is_settled OR f.expires_at <= clock_timestamp()
        WHEN g.id IS NOT NULL THEN g.ended_at IS NOT NULL OR g.ends_at <= clock_timestamp()
        ELSE n.about_id IS NOT NULL END"""
READ_ACCOUNT = text(f"""
SELECT n.id, n.request_id, n.channel, n.template, n.until_at, n.attempts, n.about_id, n.event_id, n.http_request_id,
    n.traceparent, e.at, e.body, e.actor_id,
    t.id AS tenant_id, t.name AS tenant, t.slug, h.url, h.secret, h.disabled_at AS endpoint_disabled,
    coalesce(p.name, i.name, w.name, g.name, f.name, '') AS recipient_name,
    coalesce(x.email, p.email, i.email, w.email, g.email, f.email) AS recipient_address,
    coalesce(p.time_zone, w.time_zone, g.time_zone, f.time_zone, 'UTC') AS time_zone,
    coalesce(p.disabled_at, g.disabled_at, f.disabled_at,
        CASE WHEN x.removed_at < e.at THEN x.removed_at END) AS recipient_disabled,
    coalesce(s.expires_at, i.expires_at, r.takes_effect_at, g.ends_at, f.expires_at) AS bound_at, g.principal,
    coalesce(s.code_nonce, i.code_nonce, f.code_nonce) AS code_nonce,
    coalesce(s.email, i.email, f.email) AS coded_for, i.roles,
    {IS_SETTLED} AS is_settled,
    (SELECT jsonb_object_agg(v.key, v.value ->> 1) FROM event_details d, jsonb_each(d.fields) v
        WHERE d.event_id = e.id) AS details,
    c.note
FROM notifications n
LEFT JOIN events e ON e.id = n.event_id LEFT JOIN tenants t ON t.id = n.tenant_id
LEFT JOIN people p ON p.id = n.person_id LEFT JOIN endpoints h ON h.id = n.endpoint_id
LEFT JOIN invitations i ON i.id = n.about_id AND n.template = 'invitation'
LEFT JOIN sign_ins s ON s.id = n.about_id AND n.template = 'sign_in_code'
LEFT JOIN (SELECT d.id, d.ended_at, d.ends_at, q.name, q.email, q.disabled_at,
        q.time_zone, a.name AS principal
    FROM delegations d JOIN people q ON q.id = d.delegate_id JOIN people a ON a.id = d.principal_id) g
    ON g.id = n.about_id AND n.template = 'delegate_begins'
LEFT JOIN (SELECT b.id, b.email, b.code_nonce, b.expires_at,
        b.confirmed_at IS NOT NULL OR b.removed_at IS NOT NULL AS is_settled, o.name, o.time_zone, o.disabled_at
    FROM addresses b JOIN people o ON o.id = b.person_id) f ON f.id = n.about_id AND n.template = 'address_code'
LEFT JOIN addresses x ON x.id = n.address_id
LEFT JOIN checkpoints c ON c.id = n.checkpoint_id
LEFT JOIN people w ON lower(w.email) = lower(s.email)
LEFT JOIN LATERAL (SELECT max(v.takes_effect_at) AS takes_effect_at FROM invitations v
    WHERE v.tenant_id = n.tenant_id AND v.is_recovery AND v.created_at = e.at) r ON n.template = 'recovery_proposed'
WHERE n.id = ANY(:ids) AND n.request_id IS NULL ORDER BY n.id
""")  # noqa: S608 - put together from parts of our own
WAITING = text("""
SELECT r.id, q.name, r.service, r.deadline_at FROM requests r JOIN people q ON q.id = r.requester_id
WHERE r.tenant_id = :tenant_id AND r.state = 'pending' AND (r.extends IS NULL OR ran_to_its_end(r.extends))
ORDER BY r.deadline_at LIMIT :most
""")
READ = text(f"""
SELECT n.id AS notification_id, n.channel, n.template, n.until_at, n.attempts, n.http_request_id, n.traceparent,
    e.id AS event_id, e.at, e.deadline_at,
    e.action, e.from_state, e.to_state, e.actor_id, e.actor_role, e.body, r.mode,
    coalesce(p.time_zone, 'UTC') AS time_zone,
    r.id AS request_id, r.state, r.created_at AS submitted_at, r.requester_id,
    {columns(Ask, "r")}, {columns(Requester, "r")}, {columns(Window, "r")},
    r.extends IS NOT NULL AND NOT ran_to_its_end(r.extends) AS is_outlived,
    v.finding, v.due_at AS finding_due,
    t.name AS tenant, t.slug, t.id AS tenant_id, q.name AS requester_name,
    p.id AS recipient_id, coalesce(p.name, w.name, '') AS recipient_name,
    coalesce(x.email, p.email, w.email, '') AS recipient_address, w.id IS NOT NULL AS is_copy,
    p.disabled_at IS NOT NULL OR (p.id IS NOT NULL AND NOT EXISTS (SELECT FROM memberships m
        WHERE m.person_id = p.id AND (m.tenant_id IS NULL OR m.tenant_id = n.tenant_id)))
        OR x.removed_at IS NOT NULL OR w.removed_at IS NOT NULL OR h.disabled_at IS NOT NULL AS is_unreachable,
    EXISTS (SELECT FROM decisions d WHERE d.request_id = r.id AND d.person_id = p.id) AS has_decided,
    d.fields #>> '{{name,1}}' AS actor_name, d.fields #>> '{{comment,1}}' AS comment,
    CASE WHEN a.side = p.side THEN d.fields #>> '{{address,1}}' END AS address,
    CASE WHEN a.side = p.side THEN d.fields #>> '{{user_agent,1}}' END AS user_agent
FROM notifications n
JOIN events e ON e.id = n.event_id JOIN requests r ON r.id = n.request_id JOIN tenants t ON t.id = n.tenant_id
JOIN people q ON q.id = r.requester_id
LEFT JOIN people p ON p.id = n.person_id LEFT JOIN endpoints h ON h.id = n.endpoint_id
LEFT JOIN people a ON a.id = e.actor_id LEFT JOIN event_details d ON d.event_id = e.id
LEFT JOIN addresses x ON x.id = n.address_id LEFT JOIN observers w ON w.id = n.observer_id
LEFT JOIN after_reviews v ON v.request_id = n.request_id AND r.break_glass
WHERE n.id = ANY(:ids) ORDER BY n.id
""")  # noqa: S608 - ours


@dataclass(frozen=True, kw_only=True)
class AccountNotification(LoadedNotification):
    """A notification unrelated to requests; its mail is made from `row` when it is sent."""

    row: Row[Any]


def read_account(session: UnitOfWork, ids: Sequence[UUID]) -> Sequence[Row[Any]]:
    return session.execute(READ_ACCOUNT, {"ids": list(ids)}).all()


def prepared(
    database: Database,
    row: Row[Any],
    at: datetime,
    codes: CodeKeys,
    wordings: Wordings,
    *,
    audit_keys: Keys,
    approval_keys: Sequence[str],
) -> AccountMail:
    """Return a notification's content; if it carries a code, every try carries the same code.

    Raises:
        SendFailed: no key in `audit_keys` has signed the checkpoint, or this process lacks the key of the code.
    """
    role, changes = facts_of(row.body)
    of_checkpoint, noted_at = checkpoint_digest.checkpoint_of(row, audit_keys, approval_keys)
    coded = (row.template, row.about_id, row.code_nonce, row.coded_for)
    details = row.details or ({"principal": row.principal} if row.principal else {})
    return AccountMail(
        notification_id=row.id,
        template=row.template,
        at=row.at or noted_at or at,
        until=row.bound_at,
        tenant=row.tenant,
        slug=row.slug,
        tenant_id=row.tenant_id,
        event_id=row.event_id,
        about_id=row.about_id,
        actor=details.get("name") or (OURSELVES if role == CLOCK else None),
        role=role,
        actor_id=row.actor_id,
        changes=changes | of_checkpoint,
        named=named_in(row.body, details),
        recipient_name=row.recipient_name,
        recipient_address=row.recipient_address or "",
        time_zone=row.time_zone,
        secret=mailed_codes.code_of(codes, *coded) if row.code_nonce else None,
        fingerprint=checkpoint_digest.fingerprint(row, audit_keys),
        roles=[Role(role) for role in row.roles or ()],
        waiting=_pending_requests(database, row, wordings) if row.template == DELEGATE_BEGINS else (),
    )


def _pending_requests(database: Database, row: Row[Any], wordings: Wordings) -> list[DelegatedRequest]:
    with database.transaction() as session:
        rows = session.execute(WAITING, {"tenant_id": row.tenant_id, "most": MOST_WAITING}).all()
        worded = wordings(session, [one.id for one in rows])
    return [DelegatedRequest(one.id, one.name, one.service, one.deadline_at, worded[one.id].link) for one in rows]


def read(
    session: UnitOfWork, claimed: Sequence[UUID], at: datetime, wordings: Wordings
) -> Iterator[RequestMail | AccountNotification]:
    rows = session.execute(READ, {"ids": claimed}).all()
    worded = wordings(session, [row.request_id for row in rows])
    prompts = [row.notification_id for row in rows if row.template in PROMPTS and row.channel == Channel.MAIL]
    before = earlier_requests.read(session, prompts)
    windows = window_report.read(session, list({row.request_id for row in rows if row.template == REPORT}))
    for row in rows:
        window = windows.get(row.request_id) if row.template == REPORT else None
        yield _request_mail(row, at, worded[row.request_id], before.get(row.notification_id, ()), window)
    if len(rows) < len(claimed):
        yield from map(_account_notification, read_account(session, claimed))


def _request_mail(
    row: Row[Any], at: datetime, wording: MailWording, before: Sequence[EarlierRequest], window: ClosedWindow | None
) -> RequestMail:
    wants_report = bool(wording.report and window)
    return RequestMail(
        **{name: getattr(row, name) for name in FROM_ROW},
        ask=read_part(Ask, row),
        requester=read_part(Requester, row),
        window=read_part(Window, row),
        origin=CallOrigin(row.http_request_id, row.traceparent),
        now=at,
        mode=Mode(row.mode),
        event_type=type_of(row.action, row.from_state),
        wording=replace(wording, link=False) if row.is_copy else wording,
        earlier=before,
        is_pre_approved=row.template == OPEN and PRE_APPROVED in json.loads(row.body),
        in_vain=_undelivered_count(row),
        closed=window,
        connection=TargetFailure.of(json.loads(row.body)) if row.action in CONNECTED else None,
        held_back=json.loads(row.body).get("held_back"),
        overdue_findings=json.loads(row.body).get("overdue_findings", 0),
        is_moot=is_moot(
            row.template,
            row.state,
            has_decided=row.has_decided,
            wants_report=wants_report,
            is_found=row.finding is not None,
            is_outlived=row.is_outlived,
        ),
    )


def _account_notification(row: Row[Any]) -> AccountNotification:
    return AccountNotification(
        notification_id=row.id,
        template=row.template,
        until_at=row.until_at,
        channel=row.channel,
        attempts=row.attempts,
        is_unreachable=bool(row.recipient_disabled or row.endpoint_disabled),
        is_moot=bool(row.is_settled),
        origin=CallOrigin(row.http_request_id, row.traceparent),
        row=row,
    )


def _undelivered_count(row: Row[Any]) -> str:
    body = json.loads(row.body)
    if row.template == "unreached":
        return delivery_status.undelivered_sentence(row.from_state, body["unreached"])
    return delivery_status.undelivered_sentence(row.from_state, body["asked"]) if body.get("nobody_notified") else ""
