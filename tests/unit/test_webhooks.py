"""Webhooks with a real receiver: only 2xx is a success, no redirect is followed, and everything is bounded."""

import asyncio
import base64
import gzip
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook

from harness.webhook_receiver import ScriptedAnswer, WebhookReceiver, receiving
from lockbox import safe_http
from lockbox.notifications import webhook
from lockbox.notifications.endpoints import PRIVATE_KEY, PUBLIC_KEY, new_key, new_secret
from lockbox.notifications.senders.protocol import SEND_SECONDS, SendFailed, WebhookCall
from lockbox.notifications.webhook import HttpWebhooks, signed
from lockbox.safe_http import FetchFailed
from tests.each import each
from tests.unit.test_safe_http import certified, resolve_to

NOON = datetime(2026, 12, 31, 12, tzinfo=UTC)
GIGABYTE = 1 << 30
METADATA = ScriptedAnswer(status=302, headers={"Location": "http://169.254.169.254/latest/meta-data/"})
BOMB = ScriptedAnswer(
    body=gzip.compress(b"0" * 50_000_000, 1), headers={"Content-Encoding": "gzip"}, padding=GIGABYTE
)


@pytest.fixture
def receiver() -> Iterator[WebhookReceiver]:
    with receiving() as running:
        yield running


@pytest.fixture
def hook(receiver: WebhookReceiver) -> WebhookCall:
    return WebhookCall("n-1", receiver.url, b'{"id":"n-1"}', (new_secret(),))


def refused(hook: WebhookCall, seconds: float = SEND_SECONDS) -> SendFailed:
    with pytest.raises(SendFailed) as failed:
        asyncio.run(HttpWebhooks(allow_http=True, seconds=seconds).send(hook))
    return failed.value


def test_a_webhook_call_arrives_as_json_verified_by_the_published_library(
    receiver: WebhookReceiver, hook: WebhookCall
) -> None:
    receiver.answers = [ScriptedAnswer(status=202, body=b"thank you")]

    reply = asyncio.run(HttpWebhooks(allow_http=True).send(hook))

    (call,) = receiver.calls
    assert (reply.status, reply.text) == (202, "thank you")
    assert (call.path, call.body, call.headers["content-type"]) == ("/hook", hook.body, "application/json")
    assert Webhook(hook.secrets[0]).verify(call.body, call.headers) == {"id": "n-1"}


@pytest.mark.parametrize(
    ("status", "is_permanent"),
    [
        *((status, False) for status in (300, 408, 425, 429, 500, 503)),
        *((status, True) for status in (400, 401, 404, 422, 499)),
    ],
)
def test_a_webhook_answer_other_than_2xx_is_a_failure_and_most_4xx_answers_are_permanent(
    receiver: WebhookReceiver, hook: WebhookCall, status: int, *, is_permanent: bool
) -> None:
    receiver.answers = [ScriptedAnswer(status=status, body=b"what a day")]

    failure = refused(hook)

    assert (failure.permanent, failure.gone, failure.kind) == (is_permanent, False, "status")
    assert (failure.reply.status, failure.reply.text) == (status, "what a day")
    assert "what a day" not in failure.reason


def test_a_redirect_answer_to_a_webhook_is_a_failure_and_not_followed(
    receiver: WebhookReceiver, hook: WebhookCall
) -> None:
    with receiving() as elsewhere:
        receiver.answers = [METADATA, ScriptedAnswer(status=307, headers={"Location": elsewhere.url})]

        assert [refused(hook).reply.status, refused(hook).reply.status] == [302, 307]

    assert elsewhere.calls == []
    assert len(receiver.calls) == 2


def test_a_410_answer_of_a_webhook_endpoint_is_permanent_and_marks_the_endpoint_as_gone(
    receiver: WebhookReceiver, hook: WebhookCall
) -> None:
    receiver.answers = [ScriptedAnswer(status=410)]

    failure = refused(hook)

    assert failure.gone
    assert failure.permanent


@pytest.mark.parametrize(
    ("status", "said", "wait"),
    [
        (429, "120", timedelta(minutes=2)),
        (503, " 7 ", timedelta(seconds=7)),
        (429, "999999999999", webhook.LONGEST_WAIT),
        (429, "-5", None),
        (429, "soon", None),
        (429, "", None),
        (500, "120", None),
    ],
)
def test_a_retry_after_header_in_seconds_is_read(
    receiver: WebhookReceiver, hook: WebhookCall, status: int, said: str, wait: timedelta | None
) -> None:
    receiver.answers = [ScriptedAnswer(status=status, headers={"Retry-After": said})]

    assert refused(hook).wait == wait


def test_a_retry_after_header_may_be_a_date(receiver: WebhookReceiver, hook: WebhookCall) -> None:
    until = datetime.now(UTC) + timedelta(minutes=10)
    receiver.answers = [ScriptedAnswer(status=503, headers={"Retry-After": format_datetime(until, usegmt=True)})]

    wait = refused(hook).wait

    assert wait
    assert timedelta(minutes=9) < wait <= timedelta(minutes=10)


@pytest.mark.parametrize("answer", [ScriptedAnswer(padding=GIGABYTE), BOMB])
def test_at_most_one_kilobyte_of_a_webhook_answer_is_read_and_it_is_not_decompressed(
    receiver: WebhookReceiver, hook: WebhookCall, answer: ScriptedAnswer
) -> None:
    receiver.answers = [answer]
    started = time.monotonic()

    reply = asyncio.run(HttpWebhooks(allow_http=True).send(hook))

    assert reply.status == 200
    assert len(reply.text) <= webhook.MOST_ANSWER_BYTES
    assert time.monotonic() - started < 60


@pytest.mark.parametrize(
    "answer",
    [
        ScriptedAnswer(is_held=True),
        ScriptedAnswer(drops=b" "),
        ScriptedAnswer(status=0, drops=b"HTTP/1.1 200 OK\r\nX: " + b"a" * 500),
        ScriptedAnswer(status=0, drops=b" "),
    ],
)
def test_an_endless_or_dripping_endpoint_is_abandoned_at_the_deadline(
    receiver: WebhookReceiver, hook: WebhookCall, answer: ScriptedAnswer
) -> None:
    receiver.answers = [answer]
    started = time.monotonic()

    failure = refused(hook, seconds=0.3)

    assert time.monotonic() - started < 15
    assert failure.kind in {"time", "connection"}
    assert not failure.permanent


def test_a_webhook_whose_connection_was_refused_may_be_retried(hook: WebhookCall) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        failure = refused(replace(hook, url=f"http://127.0.0.1:{taken.getsockname()[1]}/"))

    assert (failure.kind, failure.permanent) == ("connection", False)


@pytest.mark.parametrize(("name", "is_trusted"), [("localhost", True), ("other.example", True), ("localhost", False)])
def test_a_webhook_is_called_only_with_a_valid_certificate_for_its_name(
    tmp_path: Path, name: str, *, is_trusted: bool
) -> None:
    serving, trusting = certified(tmp_path, name)
    hooks = HttpWebhooks(allow_http=True, tls=trusting if is_trusted else None)

    with receiving(name="localhost", tls=serving) as receiver:
        hook = WebhookCall("n-1", receiver.url, b"{}", (new_secret(),))
        if (name, is_trusted) == ("localhost", True):
            assert asyncio.run(hooks.send(hook)).status == 204
        else:
            with pytest.raises(SendFailed) as failed:
                asyncio.run(hooks.send(hook))
            assert failed.value.kind == "certificate"

    assert len(receiver.calls) == ((name, is_trusted) == ("localhost", True))


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254"])
def test_a_webhook_host_resolving_to_an_internal_address_is_not_called_but_retried_later(
    monkeypatch: pytest.MonkeyPatch, hook: WebhookCall, address: str
) -> None:
    resolve_to(monkeypatch, [address])

    with pytest.raises(SendFailed) as failed:
        asyncio.run(HttpWebhooks().send(replace(hook, url="https://hooks.example/")))

    assert (failed.value.kind, failed.value.permanent) == ("not_public", False)


def test_a_resolver_that_changes_its_answer_is_asked_once_per_webhook_call(
    monkeypatch: pytest.MonkeyPatch, receiver: WebhookReceiver, hook: WebhookCall
) -> None:
    asked = resolve_to(monkeypatch, ["127.0.0.1"], ["10.0.0.1"])

    call = replace(hook, url=receiver.url.replace("127.0.0.1", "hooks.example"))
    asyncio.run(HttpWebhooks(allow_http=True).send(call))

    assert asked == ["hooks.example"]
    assert len(receiver.calls) == 1


@each(
    "url",
    [
        "http://hooks.example/",
        "https://user:password@hooks.example/",
        "https://user@hooks.example/",
        "https://hooks.example:22/",
        "https://hooks.example:0/",
        "https://hooks.example\\@evil.example/",
        "https:///x",
        "//hooks.example/",
        "https://hooks.example/\r\nhost: evil",
        "gopher://hooks.example/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest/",
        "https://localhost/",
        "https://a.localhost./",
        "https://10.0.0.1:8443/",
        "https://192.168.0.1/",
    ],
)
def test_an_impossible_webhook_address_is_refused_before_it_is_saved(url: str) -> None:
    with pytest.raises(FetchFailed):
        safe_http.check(url)


@pytest.mark.parametrize("url", ["https://hooks.example/a?b=c", "https://hooks.example:8443/", "https://8.8.8.8/"])
def test_a_public_webhook_address_may_be_saved(url: str) -> None:
    safe_http.check(url)


def test_the_development_setting_for_webhooks_opens_loopback_only() -> None:
    safe_http.check("http://127.0.0.1:8900/hook", allow_loopback=True)

    for url in ("http://10.0.0.1/", "http://8.8.8.8/", "https://169.254.169.254/"):
        with pytest.raises(FetchFailed):
            safe_http.check(url, allow_loopback=True)


def test_both_webhook_secrets_sign_during_the_overlap(hook: WebhookCall) -> None:
    old, new = new_secret(), new_secret()

    headers = signed(replace(hook, secrets=(new, old)), datetime.now(UTC))

    assert headers["webhook-signature"].count("v1,") == 2
    for secret in (old, new):
        assert Webhook(secret).verify(hook.body, headers)


def test_a_webhook_signing_key_signs_as_specified(hook: WebhookCall) -> None:
    private, public = new_key()
    secret = new_secret()

    headers = signed(replace(hook, secrets=(secret, private)), NOON)

    first, second = headers["webhook-signature"].split()
    version, _, signature = second.partition(",")
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix(PUBLIC_KEY)))
    content = f"n-1.{int(NOON.timestamp())}.".encode() + hook.body
    assert (first[:3], version) == ("v1,", "v1a")
    key.verify(base64.b64decode(signature), content)
    with pytest.raises(InvalidSignature):
        key.verify(base64.b64decode(signature), content + b" ")


def test_the_webhook_signature_matches_the_algorithms_test_vector() -> None:
    # RFC 8032 section 7.1, test 1: the key whose public half this is.
    private = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    hook = WebhookCall("msg_1", "https://hooks.example/", b"{}", (PRIVATE_KEY + base64.b64encode(private).decode(),))

    signature = signed(hook, NOON)["webhook-signature"].removeprefix("v1a,")

    content = f"msg_1.{int(NOON.timestamp())}.{{}}".encode()
    Ed25519PublicKey.from_public_bytes(public).verify(base64.b64decode(signature), content)
