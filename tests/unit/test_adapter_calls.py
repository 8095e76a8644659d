"""Calls of case adapters: only a signed answer to this very question counts; silence opens the circuit breaker."""

import gzip
import json
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook
from structlog.testing import capture_logs

from catalogue.service_catalogue import CaseSystem
from harness.network import serving
from harness.sinks import Manner
from harness.webhook_receiver import Call, ScriptedAnswer, WebhookReceiver
from lockbox.notifications.circuit_breaker import FIRST_OPEN, MOST_SILENCES, NotSent
from lockbox.notifications.endpoints import new_secret
from lockbox.notifications.senders.protocol import WebhookCall
from lockbox.notifications.sending_pool import ChannelPool
from lockbox.requests.case_check import (
    CHANNEL,
    SPARE_SECONDS,
    AdapterQuestion,
    AdapterSilent,
    CaseAdapters,
    CaseAnswer,
)
from lockbox.sql import new_id
from tests.each import each
from tests.unit.test_sending_pool import HandClock

SECRET = new_secret()
YES = json.dumps({"open": True, "assigned": True}).encode()
CONFIRMED = CaseAnswer(is_open=True, is_assigned=True)
MINUTES = timedelta(minutes=6)
PLENTY, LITTLE = 20.0, 0.1
OVERDUE = {"time", "name"}
"""On a busy machine, a short time may be over before the adapter's name is looked up."""
Says = Callable[[Call], ScriptedAnswer]


def signed(call: Call, body: bytes = YES, *, later: timedelta = timedelta(0), **changes: Any) -> ScriptedAnswer:
    """Return an answer to a call that is signed correctly, apart from these changes."""
    number, at = changes.get("number", call.id), datetime.now(UTC) + later
    headers = {
        "webhook-id": number,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(changes.get("secret", SECRET)).sign(number, at, body.decode()),
    }
    return ScriptedAnswer(changes.get("status", 200), changes.get("sent", body), headers=headers | changes["more"])


def saying(body: bytes = YES, **changes: Any) -> Says:
    return lambda call: signed(call, body, **({"more": {}} | changes))


def echoed(call: Call) -> ScriptedAnswer:
    """Send the question back as it came, with its own signature."""
    headers = {name: said for name, said in call.headers.items() if name.startswith("webhook-")}
    return ScriptedAnswer(body=call.body, headers=headers)


def replayed(call: Call) -> ScriptedAnswer:
    """Answer this question with the answer that was signed for another one."""
    other = signed(call, number=str(new_id()), more={})
    return ScriptedAnswer(body=YES, headers=other.headers | {"webhook-id": call.id})


class ScriptedAdapter(WebhookReceiver):
    """An adapter that answers as the test says, by default that the case is open and assigned."""

    def __init__(self) -> None:
        super().__init__()
        self.secret = SECRET
        self.says: Says = saying()

    def answer_to(self, call: Call) -> ScriptedAnswer:
        return self.says(call)


@pytest.fixture
def adapter() -> Iterator[ScriptedAdapter]:
    with serving(ScriptedAdapter()) as server:
        yield server


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def adapters(adapter: ScriptedAdapter, clock: HandClock) -> CaseAdapters:
    """The adapter as the worker knows it, with a circuit breaker whose clock the test moves."""
    return knowing(adapter.url, ChannelPool(CHANNEL, 8, clock))


def knowing(url: str, pool: ChannelPool, *, allow_http: bool = True) -> CaseAdapters:
    system = CaseSystem(title="Helpdesk", address="https://helpdesk.vendor.example/", adapter=url)
    return CaseAdapters({"helpdesk": system}, SECRET, allow_http=allow_http, pool=pool)


def ask(adapters: CaseAdapters, seconds: float = PLENTY) -> CaseAnswer | str:
    """Ask about a case; return the answer, or the word for why there is none."""
    question = AdapterQuestion(new_id(), "contoso", "helpdesk", "CASE-7", new_id(), "erin@vendor.example", seconds)
    try:
        return adapters.ask(question)
    except AdapterSilent as silent:
        return str(silent)


@each(
    ("says", "failure"),
    [
        (echoed, "unreadable"),
        (replayed, "not_signed"),
        (lambda call: signed(call, number=str(new_id()), more={}), "another_question"),
        (lambda _: ScriptedAnswer(body=YES), "another_question"),
        (saying(later=-MINUTES), "not_signed"),
        (saying(later=MINUTES), "not_signed"),
        (saying(secret=new_secret()), "not_signed"),
        (saying(sent=YES.replace(b"true", b"false", 1)), "not_signed"),
        (saying(YES + b" " * 5000), "not_signed"),
        (saying(sent=gzip.compress(YES), more={"content-encoding": "gzip"}), "not_signed"),
        (saying(sent=b"\xff" + YES), "not_signed"),
        (saying(more={"webhook-signature": "v1"}), "not_signed"),
        (saying(more={"webhook-timestamp": "nan"}), "not_signed"),
        (saying(b"[" * 2000 + b"]" * 2000), "unreadable"),
        (saying(b'{"open": "true", "assigned": 1}'), "unreadable"),
        (saying(b'[{"open": true, "assigned": true}]'), "unreadable"),
        (saying(b"open"), "unreadable"),
        (saying(status=302, more={"location": "http://169.254.169.254/"}), "status"),
        (saying(status=201), "status"),
        (saying(status=500), "status"),
    ],
)
def test_an_unsigned_or_mismatched_case_adapter_answer_counts_as_no_answer(
    adapters: CaseAdapters, adapter: ScriptedAdapter, says: Says, failure: str
) -> None:
    adapter.says = says
    before = len(adapter.calls)

    assert ask(adapters) == failure
    assert len(adapter.calls) == before + 1


def test_a_signed_case_adapter_answer_is_accepted_whatever_its_content_type(
    adapters: CaseAdapters, adapter: ScriptedAdapter
) -> None:
    adapter.says = saying(more={"content-type": "text/html"})

    assert ask(adapters) == CONFIRMED
    assert adapter.calls[0].is_signed


@each(
    "answer",
    [
        ScriptedAnswer(is_held=True),
        ScriptedAnswer(drops=b" "),
        ScriptedAnswer(status=0, drops=b"HTTP/1.1 200 OK\r\nX: " + b"a" * 500),
    ],
)
def test_an_endless_case_adapter_answer_ends_when_its_caller_stops_waiting(
    adapters: CaseAdapters, adapter: ScriptedAdapter, answer: ScriptedAnswer
) -> None:
    adapter.says = lambda _: answer

    assert ask(adapters, LITTLE) in OVERDUE


def test_repeated_connection_failures_open_the_case_adapters_circuit_until_a_retry_succeeds(
    adapters: CaseAdapters, adapter: ScriptedAdapter, clock: HandClock
) -> None:
    adapter.manner = Manner.CUT
    with capture_logs() as lines:
        assert [ask(adapters) for _ in range(MOST_SILENCES + 2)] == [
            *["connection"] * MOST_SILENCES,
            *["circuit_open"] * 2,
        ]
        assert len(adapter.calls) == MOST_SILENCES

        clock.now += FIRST_OPEN
        assert [ask(adapters), ask(adapters)] == ["connection", "circuit_open"]
        assert len(adapter.calls) == MOST_SILENCES + 1

        clock.now += 2 * FIRST_OPEN
        adapter.manner = Manner.TAKE
        assert [ask(adapters) for _ in range(3)] == [CONFIRMED] * 3

    told = [(line["event"], line["channel"], line["destination"]) for line in lines]
    host = f"127.0.0.1:{adapter.port}"
    opened, closed = (f"circuit_breaker.{what}" for what in ("opened", "closed"))
    assert told == [(opened, CHANNEL, host), (opened, CHANNEL, host), (closed, CHANNEL, host)]


def test_a_case_adapter_with_invalid_or_overdue_answers_is_not_skipped(
    adapters: CaseAdapters, adapter: ScriptedAdapter
) -> None:
    adapter.says = saying(status=500)
    assert [ask(adapters) for _ in range(MOST_SILENCES + 1)] == ["status"] * (MOST_SILENCES + 1)
    adapter.says = lambda _: ScriptedAnswer(is_held=True)
    assert {ask(adapters, 0.02) for _ in range(MOST_SILENCES + 1)} <= OVERDUE

    adapter.says = saying()
    assert ask(adapters) == CONFIRMED


def test_a_case_adapter_host_that_later_resolves_to_an_internal_address_is_not_called(
    adapter: ScriptedAdapter, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, truly = ["127.0.0.1", "169.254.169.254", "10.0.0.7"], socket.getaddrinfo

    def getaddrinfo(host: str, *more: Any, **named: Any) -> Any:
        if host != "localhost":
            return truly(host, *more, **named)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (left.pop(0), 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    url = adapter.url.replace("127.0.0.1", "localhost")
    named = knowing(url, ChannelPool(CHANNEL, 8, clock))

    assert [ask(named) for _ in range(3)] == [CONFIRMED, "not_public", "not_public"]
    assert (len(adapter.calls), left) == (1, [])


def test_production_calls_no_case_adapter_on_loopback(adapter: ScriptedAdapter, clock: HandClock) -> None:
    for url in (adapter.url, adapter.url.replace("http:", "https:")):
        assert ask(knowing(url, ChannelPool(CHANNEL, 8, clock), allow_http=False)) in {"form", "not_public"}
    assert adapter.callers == 0


def test_the_repr_of_a_case_adapter_or_call_contains_no_secret(adapters: CaseAdapters) -> None:
    call = WebhookCall("1", "https://helpdesk.vendor.example/", YES, (SECRET,))
    assert call.hook_id in repr(call)
    for shown in (adapters, call):
        assert SECRET.removeprefix("whsec_") not in repr(shown)


def test_a_case_adapter_answer_that_arrives_after_its_caller_left_counts_as_silence(adapters: CaseAdapters) -> None:
    assert ask(adapters, -SPARE_SECONDS) == "time"


def test_a_case_adapter_call_that_the_pool_rejects_returns_full_or_stopping(
    adapters: CaseAdapters, adapter: ScriptedAdapter
) -> None:
    host = f"127.0.0.1:{adapter.port}"
    while not adapters.pool.enter(host):
        pass
    assert ask(adapters) == NotSent.FULL

    adapters.pool.stop(0.0)

    assert ask(adapters) == NotSent.STOPPING
    assert adapter.callers == 0
