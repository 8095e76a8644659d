"""The network of the chaos: what passes, is swallowed, reset or changed on the way between Lockbox and a server."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from chaos.celery_messages import MessageFate, MessageLog, written
from chaos.crew import SHIFTED
from harness.network import EventLoopThread, Proxy, ProxyMode

PATIENCE = 10.0
MESSAGE = json.dumps({"body": "b", "properties": {"delivery_tag": "first"}}).encode()


@pytest.fixture
def loop() -> Iterator[EventLoopThread]:
    found = EventLoopThread()
    yield found
    found.close()


@contextmanager
def echo() -> Iterator[int]:
    """A server that says everything back; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(line: socket.socket) -> None:
        with line:
            while data := _received(line):
                line.sendall(data)

    def accept() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(line,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(PATIENCE)


def _received(line: socket.socket) -> bytes:
    try:
        return line.recv(100)
    except OSError:
        return b""


@pytest.fixture
def proxy(loop: EventLoopThread) -> Iterator[Proxy]:
    """A proxy before a server that says everything back."""
    with echo() as port:
        found = Proxy(port)
        loop.do(found.open())
        yield found
        loop.do(found.leave())


def called(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=PATIENCE)


def test_what_passes_arrives_both_ways(proxy: Proxy) -> None:
    with called(proxy) as line:
        line.sendall(b"hello")

        assert line.recv(100) == b"hello"


def test_what_refuses_resets_old_connections_takes_no_new_ones_and_comes_back(
    loop: EventLoopThread, proxy: Proxy
) -> None:
    with called(proxy) as line:
        line.sendall(b"hello")
        assert line.recv(100) == b"hello"

        loop.do(proxy.turn(ProxyMode.REFUSE))

        with pytest.raises(ConnectionResetError):
            line.recv(100)
        with pytest.raises(ConnectionRefusedError):
            called(proxy)
    loop.do(proxy.turn(ProxyMode.PASS))
    with called(proxy) as line:
        line.sendall(b"again")
        assert line.recv(100) == b"again"


@pytest.mark.far
def test_a_black_hole_takes_connections_and_says_nothing_until_it_is_over(
    loop: EventLoopThread, proxy: Proxy
) -> None:
    with called(proxy) as old:
        old.sendall(b"hello")
        assert old.recv(100) == b"hello"
        loop.do(proxy.turn(ProxyMode.BLACK_HOLE))
        with called(proxy) as new:
            for line in (old, new):
                line.settimeout(0.2)
                line.sendall(b"lost?")
                with pytest.raises(TimeoutError):
                    line.recv(100)

            loop.do(proxy.turn(ProxyMode.PASS))

            for line in (old, new):
                line.settimeout(PATIENCE)
                assert line.recv(100) == b"lost?"


def test_a_cut_resets_what_is_open_and_lets_new_ones_pass(loop: EventLoopThread, proxy: Proxy) -> None:
    with called(proxy) as old:
        old.sendall(b"hello")
        assert old.recv(100) == b"hello"

        loop.do(proxy.cut())

        with pytest.raises(ConnectionResetError):
            old.recv(100)
    with called(proxy) as new:
        new.sendall(b"hello")
        assert new.recv(100) == b"hello"


def test_what_is_slow_arrives_later(loop: EventLoopThread, proxy: Proxy) -> None:
    loop.do(proxy.turn(ProxyMode.SLOW))
    with called(proxy) as line:
        began = time.monotonic()
        line.sendall(b"hello")

        assert line.recv(100) == b"hello"
        assert time.monotonic() - began > 0.1


def commands(data: bytes) -> list[list[bytes]]:
    """Return the commands that Redis would read, in the one form that this test writes."""
    return [re.findall(rb"\$\d+\r\n(.*?)\r\n", part, re.DOTALL) for part in re.split(rb"\*\d+\r\n", data)[1:]]


def test_commands_pass_as_they_are_however_they_are_cut() -> None:
    data = written([b"SET", b"key", b"a\r\nb"]) + written([b"LPUSH", b"core", MESSAGE]) + written([b"PING"])
    line, _ = MessageLog().line()

    passed = b"".join(line(data[at : at + 3]) for at in range(0, len(data), 3))

    assert passed == data


def test_a_tripled_message_is_three_deliveries_of_one_message() -> None:
    messages = MessageLog()
    messages.fate = MessageFate.TRIPLE

    (command,) = commands(messages.line()[0](written([b"LPUSH", b"notify", MESSAGE])))

    deliveries = [json.loads(word) for word in command[2:]]
    assert command[:2] == [b"LPUSH", b"notify"]
    assert {one["body"] for one in deliveries} == {"b"}
    assert len({one["properties"]["delivery_tag"] for one in deliveries}) == 3


@pytest.mark.parametrize("fate", [MessageFate.HOLD, MessageFate.LOSE])
def test_a_message_that_is_held_or_lost_goes_where_no_worker_looks_and_nothing_else_does(fate: MessageFate) -> None:
    messages = MessageLog()
    messages.fate = fate
    line, _ = messages.line()

    (held,) = commands(line(written([b"LPUSH", b"core", MESSAGE])))
    (other,) = commands(line(written([b"LPUSH", b"unknown", MESSAGE])))

    assert held == [b"LPUSH", f"chaos:{fate}:core".encode(), MESSAGE]
    assert other[1] == b"unknown"


def test_what_redis_must_never_be_told_is_seen_and_passwords_of_its_own_are_not() -> None:
    messages = MessageLog()
    messages.forbid(["anna@contoso.example"])
    line, _ = messages.line()

    line(written([b"AUTH", b"anna@contoso.example"]))
    assert messages.leaks == []

    line(written([b"SET", b"k", b"to anna@contoso.example"]))
    assert messages.leaks == ["SET"]


@pytest.mark.far
@pytest.mark.parametrize("shift", [-300, 300])
def test_a_process_whose_clock_is_off_is_off_by_just_so_much_and_works(shift: int) -> None:
    script = """
import time, datetime
from sqlmodel import SQLModel
now = datetime.datetime.now(datetime.UTC)
assert isinstance(now, datetime.datetime) and type(now) is type(datetime.datetime(2026, 1, 1))
print(time.time(), time.time_ns() / 1e9, now.timestamp(), datetime.datetime.now().timestamp())
"""
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SHIFTED), "CHAOS_SHIFT": str(shift)}

    before = time.time()
    told = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    after = time.time()

    assert all(before + shift <= float(one) <= after + shift for one in told.stdout.split())
