"""The work, the same for every peer: for each move a state row and an audit row, in one SQL statement, and mails."""

import os
import smtplib
import threading
from collections.abc import Mapping
from urllib.parse import urlsplit

import psycopg

DATABASE_URL = os.environ["BENCH_DATABASE_URL"]
REDIS_URL = os.environ["BENCH_REDIS_URL"]
SMTP_URL = os.environ["BENCH_SMTP_URL"]
SUBMITTED_MAILS, APPROVED_MAILS, ENDED_MAILS = map(int, os.environ["BENCH_MAILS"].split())
KEPT = threading.local()

SUBMIT = """
WITH submitted AS (
    INSERT INTO requests (id, requester, service, resources, actions, justification, access_window, state, version,
        deadline_at, created_at)
    VALUES (%(id)s, 'erin@vendor.example', %(service)s, %(resources)s, %(actions)s, %(justification)s,
        %(access_window)s, 'pending', 1, now() + interval '12 hours', now())
    RETURNING id, version, state
)
INSERT INTO audit (request_id, seq, at, action, to_state) SELECT id, version, now(), 'submit', state FROM submitted
"""
APPROVE = """
WITH moved AS (
    UPDATE requests SET state = 'active', version = version + 1,
        deadline_at = now() + make_interval(secs => access_window)
    WHERE id = %(id)s AND state = 'pending' RETURNING id, version, state, deadline_at
), audited AS (
    INSERT INTO audit (request_id, seq, at, action, to_state) SELECT id, version, now(), 'approve', state FROM moved
)
SELECT extract(epoch FROM deadline_at) FROM moved
"""
END = """
WITH moved AS (
    UPDATE requests SET state = CASE state WHEN 'active' THEN 'expired' ELSE 'timed_out' END, version = version + 1,
        closed_at = clock_timestamp()
    WHERE id = %(id)s AND state IN ('pending', 'active') RETURNING id, version, state
)
INSERT INTO audit (request_id, seq, at, action, to_state) SELECT id, version, now(), 'end', state FROM moved
"""
RECORD = "INSERT INTO notifications (request_id, template, sent_at) VALUES (%(id)s, %(template)s, now())"
MAIL = """From: Lockbox <lockbox@vendor.example>\r
To: Ann Archer <ann@customer.example>\r
Subject: A request for access is {template}\r
\r
Somebody at your vendor requests access to a mailbox of yours, or has been given it, or it has ended.\r
The request is {id}.\r
"""


def submit(id_: str, asked: Mapping[str, object]) -> None:
    """Submit a request."""
    _connection().execute(SUBMIT, {"id": id_, **asked})


def approve(id_: str) -> float:
    """Open the request's window, and return when the window ends, in seconds since 1970."""
    ((until,),) = _connection().execute(APPROVE, {"id": id_}).fetchall()
    return float(until)


def end(id_: str) -> None:
    """End the request; the caller makes sure that it is due."""
    _connection().execute(END, {"id": id_})


def tell(id_: str, template: str) -> None:
    """Send one mail and note that it was sent."""
    _relay().sendmail("lockbox@vendor.example", ["ann@customer.example"], MAIL.format(id=id_, template=template))
    _connection().execute(RECORD, {"id": id_, "template": template})


def _connection() -> psycopg.Connection:
    """Return this thread's connection in this process, never one that was made before a fork."""
    if getattr(KEPT, "process", None) != os.getpid():
        KEPT.process = os.getpid()
        KEPT.connection = psycopg.connect(DATABASE_URL, autocommit=True, prepare_threshold=1)
    found: psycopg.Connection = KEPT.connection
    return found


def _relay() -> smtplib.SMTP:
    """Return this thread's connection to the relay, in the same way."""
    if getattr(KEPT, "sender", None) != os.getpid():
        KEPT.sender = os.getpid()
        place = urlsplit(SMTP_URL)
        KEPT.relay = smtplib.SMTP(place.hostname or "", place.port or 0, timeout=10)
    found: smtplib.SMTP = KEPT.relay
    return found
