"""Ports that a process takes for itself: no two processes get the same, however many ask at once."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy.engine import make_url

from config import ports
from devstack import embedded
from devstack.embedded import servers
from harness.ports import own_port

ASKS = "from config import ports; mine = ports.own(); print(mine.start, mine.stop, flush=True); input()"
TAKES = "import sys; from config import ports; print(ports.take(int(sys.argv[1])), flush=True); input()"


@contextmanager
def another(code: str, *told: object) -> Iterator[tuple[str, ...]]:
    """Run code in another process; yield the words that it prints, and end it."""
    command = [sys.executable, "-c", code, *map(str, told)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield tuple(process.stdout.readline().split())
        process.communicate("\n")


def test_no_two_test_processes_get_the_same_port_range() -> None:
    with ExitStack() as ends:
        told = [ends.enter_context(another(ASKS)) for _ in range(4)]
        ranges = [range(int(start), int(stop)) for start, stop in told]

        ours = ports.own()

    assert len({port for one in (*ranges, ours) for port in one}) == 5 * len(ours)


def test_the_port_range_of_an_ended_process_is_free() -> None:
    with another(TAKES, 20_005) as first, another(TAKES, 20_005) as second:
        assert (first, second) == (("True",), ("False",))
        assert not ports.take(20_005)

    with another(TAKES, 20_005) as third:
        assert third == ("True",)


def test_ports_given_to_a_process_differ_and_a_range_has_the_requested_length() -> None:
    one, other, roomy, last = own_port(), own_port(), own_port(20), own_port()

    assert len({one, other, *range(roomy, roomy + 20), last}) == 23
    assert {one, other, roomy, roomy + 19, last} <= set(ports.own())


def test_a_port_already_in_use_is_skipped() -> None:
    with ports.hold(own_port(2)) as held:
        port = held.getsockname()[1]
        is_free = ports.is_free(port)
        with ports.hold(port) as other:
            found = other.getsockname()[1]

    assert not is_free
    assert found > port


@pytest.mark.far
def test_embedded_servers_choose_no_port_of_another_process(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = next(port for port in range(31_000, 32_000) if ports.is_free(port) and ports.is_free(port + 1))
    monkeypatch.setattr(servers, "PORTS", range(free, free + 2))
    folder = embedded.default_folder(tmp_path_factory.mktemp("checkout"))

    with another(TAKES, free):
        started = embedded.start(folder, environment="test", only=["mail"])
        started.stop()

    assert make_url(started.smtp_url).port == free + 1
