"""The guard in front of ASGI and WSGI services, over connections: who is let in, what is answered, what is cut."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any, cast
from uuid import UUID

import httpx
import pytest
from lockbox_guard import AsgiGuard, Guard, GuardedCall, Refused, database_clock

from harness.wait import wait_for
from tests.guarded_apps import (
    PIECE,
    GuardedService,
    OpenCall,
    end_of,
    get,
    send_slowly,
    served,
    served_wsgi,
    websocket,
)
from tests.unit.guard_lockbox import ERIN, USE, SmallLockbox, guard_of, window

BEARER = "Authorization: Bearer erin"
CHUNKED = "Transfer-Encoding: chunked"
Opener = Callable[[dict[str, Any]], UUID]
CUT_SECONDS = 1.0
QUIET_SECONDS = database_clock.QUIET_SECONDS
SLACK = 10.0
"""For a busy machine. Exact times are tested with a clock that a test moves, in `test_guard_watches`."""
PATIENCE = 20.0


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def lockbox() -> Iterator[SmallLockbox]:
    small = SmallLockbox()
    small.knows("erin", seconds=3600)
    yield small
    small.close()


@pytest.fixture(scope="module")
def guard(lockbox: SmallLockbox, patched: pytest.MonkeyPatch) -> Iterator[Guard]:
    with guard_of(lockbox, patched) as made:
        yield made


@pytest.fixture(scope="module")
def service(guard: Guard) -> GuardedService:
    return GuardedService(guard)


@pytest.fixture(scope="module")
def port(service: GuardedService) -> Iterator[int]:
    with served(service) as found:
        yield found


@pytest.fixture(autouse=True)
def no_windows(lockbox: SmallLockbox, guard: Guard) -> Iterator[None]:
    yield
    lockbox.is_fresh = True
    for one in list(lockbox.windows):
        lockbox.windows.pop(one)
        lockbox.send("close", {"request": one})
    wait_for("no window is left", lambda: window_of(guard) is None, PATIENCE)


@pytest.fixture
def opened(lockbox: SmallLockbox, guard: Guard) -> Opener:
    """Return a function that opens a window, and returns its request once the guard knows it."""

    def opens(said: dict[str, Any]) -> UUID:
        request = lockbox.open(said)
        # A window of the test before may still be there, and end.
        wait_for("it knows it", lambda: window_of(guard) == request, PATIENCE)
        return request

    return opens


def window_of(guard: Guard) -> UUID | None:
    try:
        return guard.check(**USE, engineer=ERIN).request
    except Refused:
        return None


def ask(port: int, path: str = "/mailboxes/anna", **headers: str) -> httpx.Response:
    return httpx.get(f"http://127.0.0.1:{port}{path}", headers=headers, timeout=10, trust_env=False)


def test_guard_middleware_admits_a_call_with_a_window_and_gives_the_service_the_request_id(
    opened: Opener, port: int
) -> None:
    request = opened(window())

    answer = ask(port, authorization="Bearer erin")

    assert (answer.status_code, answer.json()) == (200, {"request": str(request)})


def ask_until_it_hears(port: int, **headers: str) -> httpx.Response:
    """Ask until the guard hears Lockbox: after a stall of the machine, it hears nothing for a while."""
    answers = list[httpx.Response]()

    def heard() -> bool:
        answers.append(ask(port, **headers))
        return str(answers[-1].headers.get("lockbox-reason")) != "behind"

    wait_for("it hears", heard, PATIENCE)
    return answers[-1]


def test_a_refusal_of_guard_middleware_says_why_and_where_to_request_access(port: int) -> None:
    answer = ask_until_it_hears(port, authorization="Bearer erin")

    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["lockbox-reason"] == answer.json()["code"] == "no_window"
    assert answer.json()["request_form"] == "https://lockbox.example/ask?tenant=contoso"


def test_guard_middleware_shows_browsers_a_refusal_page(port: int) -> None:
    answer = ask_until_it_hears(port, authorization="Bearer erin", accept="text/html,*/*")

    assert answer.status_code == 403
    assert '<a href="https://lockbox.example/ask?tenant=contoso">Request access</a>' in answer.text


@pytest.mark.parametrize("shown", ["", "Basic ZXJpbg==", "Bearer", "erin"])
def test_guard_middleware_answers_401_without_a_token(opened: Opener, port: int, shown: str) -> None:
    opened(window())

    answer = ask(port, **({"authorization": shown} if shown else {}))

    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.headers["lockbox-reason"] == "no_token"


def test_guard_middleware_removes_the_asgi_extensions_for_sending_whole_files(opened: Opener, guard: Guard) -> None:
    """A service could use them to send a file past the guard, which could not cut it."""
    opened(window())
    tls: dict[str, Any] = {"tls": {"version": 772}}
    offered = tls | {"http.response.pathsend": {}, "http.response.zerocopysend": {}}
    seen: dict[str, Any] = {}

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        seen.update(scope["extensions"])

    scope = {"type": "http", "headers": [(b"authorization", b"Bearer erin")], "extensions": offered}
    asyncio.run(AsgiGuard(app, guard, lambda _: GuardedCall(**USE))(scope, cast("Any", None), cast("Any", None)))

    assert seen == tls


def test_guard_middleware_refuses_a_call_with_two_tokens(opened: Opener, port: int) -> None:
    opened(window())
    call = get(port, "/mailboxes/anna", BEARER, BEARER, "Connection: close")

    call.wait_for_end()

    assert call.read.startswith(b"HTTP/1.1 403")
    assert b"malformed" in call.read


@pytest.mark.parametrize("path", ["/mailboxes/bob", "/", "/mailboxes/anna/../anna", "/docs"])
def test_guard_middleware_refuses_an_unmapped_call(
    opened: Opener, port: int, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    opened(window())

    call = get(port, path, BEARER, "Connection: close")
    call.wait_for_end()

    assert call.read.startswith(b"HTTP/1.1 403")
    assert b"lockbox-reason: unmapped" in call.read
    assert "not known: KeyError" in caplog.text
    assert "bob" not in caplog.text


def test_guard_middleware_refuses_if_the_mapping_function_returns_nothing(guard: Guard, opened: Opener) -> None:
    opened(window())
    service = GuardedService(guard)
    service.app._call = lambda _: None  # type: ignore[assignment, return-value] # noqa: SLF001 - planted
    with served(service) as port:
        assert ask(port, authorization="Bearer erin").headers["lockbox-reason"] == "unmapped"


def stream(port: int) -> OpenCall:
    call = get(port, "/mailboxes/anna/live", BEARER)
    call.wait_for(PIECE)
    return call


def upload(port: int) -> OpenCall:
    call = get(port, "/mailboxes/anna", BEARER, CHUNKED, method="POST")
    send_slowly(call)
    return call


def talk(port: int) -> OpenCall:
    call = websocket(port, "/mailboxes/anna/live", BEARER)
    call.wait_for(PIECE)
    return call


@pytest.mark.far
def test_guard_middleware_cuts_a_stream_when_its_window_ends(
    lockbox: SmallLockbox, opened: Opener, port: int, service: GuardedService
) -> None:
    request = opened(window())
    call = stream(port)
    time.sleep(1.0)
    assert call.ended_at is None
    began = time.monotonic()

    lockbox.shut(request)

    assert call.wait_for_end() - began < CUT_SECONDS + SLACK
    assert not call.read.endswith(b"0\r\n\r\n")
    pieces = service.pieces
    time.sleep(0.3)
    assert service.pieces == pieces


@pytest.mark.far
def test_guard_middleware_refuses_an_upload_when_its_window_ends(
    lockbox: SmallLockbox, opened: Opener, port: int, service: GuardedService
) -> None:
    request = opened(window())
    ask(port, authorization="Bearer erin")
    before, call = service.received, upload(port)
    wait_for("the upload has begun", lambda: service.received > before, PATIENCE)
    time.sleep(1.0)
    assert call.ended_at is None
    began = time.monotonic()

    lockbox.shut(request)

    assert call.wait_for_end() - began < CUT_SECONDS + SLACK
    assert call.read.startswith(b"HTTP/1.1 403")
    assert b"connection: close" in call.read


@pytest.mark.far
def test_guard_middleware_closes_a_websocket_when_its_window_ends(
    lockbox: SmallLockbox, opened: Opener, port: int
) -> None:
    request = opened(window())
    call = talk(port)
    time.sleep(1.0)
    assert call.ended_at is None
    began = time.monotonic()

    lockbox.shut(request)

    while b"window has ended" not in call.read:
        assert time.monotonic() - began < CUT_SECONDS + SLACK, call.read[-100:]
        time.sleep(0.01)
    call.close()
    assert end_of(call) == 1008


def test_guard_middleware_refuses_a_websocket_without_a_window_before_it_opens(port: int) -> None:
    wait_for(
        "the guard says why", lambda: ask(port, authorization="Bearer erin").json()["code"] == "no_window", PATIENCE
    )
    call = websocket(port, "/mailboxes/anna/live", BEARER)
    call.wait_for(b"lockbox-reason")
    call.close()

    assert end_of(call) == 403


@pytest.mark.far
def test_guard_middleware_ends_a_call_at_the_deadline_of_its_window(opened: Opener, port: int) -> None:
    began = time.monotonic()
    opened(window(seconds=5))
    call = stream(port)

    assert 3.0 < call.wait_for_end() - began < 5.0 + 0.25 + SLACK


def test_guard_middleware_ends_calls_when_lockbox_stops_answering(
    lockbox: SmallLockbox, opened: Opener, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(window())
    call = stream(port)
    monkeypatch.setattr(database_clock, "QUIET_SECONDS", QUIET_SECONDS)
    began = time.monotonic()

    lockbox.is_fresh = False

    assert call.wait_for_end() - began < 3.0 + 0.25 + SLACK


@pytest.mark.far
def test_guard_middleware_lets_a_call_drain_where_configured(
    lockbox: SmallLockbox, opened: Opener, guard: Guard
) -> None:
    request = opened(window())
    with served(GuardedService(guard, drain_seconds=1.5)) as port:
        call = stream(port)
        began = time.monotonic()

        lockbox.shut(request)

        assert 1.5 < call.wait_for_end() - began < 1.5 + CUT_SECONDS + SLACK


@pytest.mark.far
def test_guard_middleware_never_cuts_an_answer_that_ends_while_the_window_is_open(opened: Opener, port: int) -> None:
    opened(window())

    answers = [ask(port, authorization="Bearer erin") for _ in range(20)]

    assert {answer.status_code for answer in answers} == {200}


@pytest.fixture(scope="module")
def wsgi(guard: Guard) -> Iterator[int]:
    with served_wsgi(guard) as found:
        yield found


def test_wsgi_guard_middleware_admits_calls_with_a_window_and_refuses_others(opened: Opener, wsgi: int) -> None:
    wait_for("it hears Lockbox", lambda: ask(wsgi, authorization="Bearer erin").json()["code"] != "behind", PATIENCE)
    refused = ask(wsgi, authorization="Bearer erin")
    assert (refused.status_code, refused.json()["code"]) == (403, "no_window")
    opened(window())

    assert ask(wsgi, authorization="Bearer erin").text == "hello"
    assert ask(wsgi).status_code == 401
    assert ask(wsgi, "/mailboxes/bob", authorization="Bearer erin").json()["code"] == "unmapped"


@pytest.mark.far
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_wsgi_guard_middleware_cuts_a_stream_when_its_window_ends(
    lockbox: SmallLockbox, opened: Opener, wsgi: int
) -> None:
    request = opened(window())
    call = stream(wsgi)
    began = time.monotonic()

    lockbox.shut(request)

    assert call.wait_for_end() - began < CUT_SECONDS + SLACK


@pytest.mark.far
def test_wsgi_guard_middleware_refuses_an_upload_when_its_window_ends(
    lockbox: SmallLockbox, opened: Opener, wsgi: int
) -> None:
    request = opened(window())
    call = get(wsgi, "/mailboxes/anna", BEARER, "Content-Length: 1000000", method="POST")
    send_slowly(call)
    time.sleep(0.5)
    began = time.monotonic()

    lockbox.shut(request)

    call.wait_for(b"403 Forbidden")
    assert time.monotonic() - began < CUT_SECONDS + SLACK
    call.close()


def test_a_caller_set_by_the_mapping_function_overrides_the_authorization_header() -> None:
    assert GuardedCall("t", "r:1", "read", engineer=ERIN).token_or(["Bearer other"]) is None
    assert GuardedCall("t", "r:1", "read", token="own").token_or(["Bearer other"]) == "own"
    assert GuardedCall("t", "r:1", "read").token_or(["bearer other"]) == "other"
