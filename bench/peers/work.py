"""The work, the same for every peer: a state row and an audit row a move, in one statement, and mails."""

import os
import smtplib
import threading
from datetime import datetime
from urllib.parse import urlsplit

import psycopg

DATABASE_URL = os.environ["BENCH_DATABASE_URL"]
REDIS_URL = os.environ["BENCH_REDIS_URL"]
SMTP_URL = os.environ["BENCH_SMTP_URL"]
KEPT = threading.local()

FILE = """
WITH filed AS (
    INSERT INTO requests (id, requester, service, resources, actions, justification, state, version, deadline_at,
        created_at)
    VALUES (%(id)s, 'erin@vendor.example', 'exchange-online', ARRAY['mailbox:anna@contoso.example'], ARRAY['read'],
        'The mailbox does not open on the phone', 'pending', 1, now() + interval '12 hours', now())
    RETURNING id, version, state
)
INSERT INTO audit (request_id, seq, at, action, to_state) SELECT id, version, now(), 'submit', state FROM filed
"""
APPROVE = """
WITH moved AS (
    UPDATE requests SET state = 'active', version = version + 1, deadline_at = %(until)s
    WHERE id = %(id)s AND state = 'pending' RETURNING id, version, state
)
INSERT INTO audit (request_id, seq, at, action, to_state) SELECT id, version, now(), 'approve', state FROM moved
"""
END = """
WITH moved AS (
    UPDATE requests SET state = CASE state WHEN 'active' THEN 'expired' ELSE 'timed_out' END, version = version + 1,
        closed_at = clock_timestamp()
    WHERE id = %(id)s AND state IN ('pending', 'active') RETURNING id, version, state
)
INSERT INTO audit (request_id, seq, at, action, to_state) SELECT id, version, now(), 'end', state FROM moved
"""
TOLD = "INSERT INTO notifications (request_id, template, sent_at) VALUES (%(id)s, %(template)s, now())"
MAIL = """From: Lockbox <lockbox@vendor.example>\r
To: Ann Archer <ann@customer.example>\r
Subject: A request for access is {template}\r
\r
Somebody at your vendor asks for access to a mailbox of yours, or has been given it, or it has ended.\r
The request is {id}.\r
"""


def file(id_: str) -> None:
    """File a request."""
    _connection().execute(FILE, {"id": id_})


def approve(id_: str, until: datetime) -> None:
    """Open its window."""
    _connection().execute(APPROVE, {"id": id_, "until": until})


def end(id_: str) -> None:
    """End it; that it is due is left to whoever calls."""
    _connection().execute(END, {"id": id_})


def tell(id_: str, template: str) -> None:
    """Send one mail and note that it was sent."""
    place = urlsplit(SMTP_URL)
    with smtplib.SMTP(place.hostname or "", place.port or 0, timeout=10) as relay:
        relay.sendmail("lockbox@vendor.example", ["ann@customer.example"], MAIL.format(id=id_, template=template))
    _connection().execute(TOLD, {"id": id_, "template": template})


def _connection() -> psycopg.Connection:
    """Return this thread's connection in this process; one that was made before a fork is left alone."""
    if getattr(KEPT, "process", None) != os.getpid():
        KEPT.process = os.getpid()
        KEPT.connection = psycopg.connect(DATABASE_URL, autocommit=True, prepare_threshold=1)
    found: psycopg.Connection = KEPT.connection
    return found
