"""`make run`, as a newcomer uses it: what it prints works as it is, and Ctrl-C leaves nothing behind."""

import re
import shlex
import signal
import stat
import subprocess
from collections.abc import Iterator

import httpx
import psutil
import pytest

from tests.ports import own_port
from tests.whole import terminal
from tests.whole.terminal import Terminal

README = terminal.CHECKOUT / "README.md"
SECONDS = 60


@pytest.fixture(scope="module")
def here() -> Iterator[Terminal]:
    """A terminal."""
    with terminal.opened() as opened:
        yield opened


def run(here: Terminal, **variables: str) -> "subprocess.Popen[str]":
    tokens = str(here.place / "tokens.env")
    ports = ["--port", str(own_port(17000)), "--flower-port", str(own_port(17500))]
    return here.start("cli.run", "--folder", str(here.folder), "--tokens", tokens, *ports, **variables)


def read_until(process: "subprocess.Popen[str]", begins: str) -> str:
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith(begins):
            return said
    raise AssertionError(f"it ended without a line that begins with {begins!r}:\n{said}")


def test_what_it_prints_works_and_ctrl_c_stops_all(here: Terminal) -> None:
    with run(here) as running:
        said = read_until(running, "curl ")
        curl = subprocess.run(shlex.split(said.splitlines()[-1]), capture_output=True, text=True, check=False)
        flower = re.search(r"Flower +(\S+).*\n.*user (\S+), password (\S+)", said)
        assert flower
        workers = httpx.get(f"{flower[1]}/api/workers", auth=(flower[2], flower[3]), trust_env=False)
        tokens = here.place / "tokens.env"
        known = dict(line.split("=", 1) for line in tokens.read_text().splitlines())
        mine = httpx.get(
            f"{known['API']}/v1/requests", headers={"authorization": f"Bearer {known['MAX']}"}, trust_env=False
        )
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=SECONDS)

    assert '"state":"reviewing"' in curl.stdout
    assert workers.status_code == 200
    assert stat.S_IMODE(tokens.stat().st_mode) == 0o600
    assert [item["requester"]["id"] for item in mine.json()["items"]] == [known["ERIN_ID"]]
    assert running.returncode == 0
    assert here.left() == []


def test_a_process_that_dies_ends_the_others_and_fails(here: Terminal) -> None:
    with run(here) as running:
        read_until(running, "curl ")
        [api] = [one for one in psutil.Process(running.pid).children(recursive=True) if "api" in one.cmdline()]
        api.kill()
        running.communicate(timeout=SECONDS)

    assert running.returncode == 1
    assert here.left() == []


def test_production_is_refused(here: Terminal) -> None:
    with run(here, LOCKBOX_ENVIRONMENT="production") as running:
        _, complained = running.communicate(timeout=SECONDS)

    assert running.returncode == 1
    assert "production" in complained


def test_the_readmes_walk_works_as_it_stands() -> None:
    walk = README.read_text().split("## A walk with curl")[1]
    lines = re.findall(r"^    (.*)$", walk, re.MULTILINE)

    with terminal.opened() as here, run(here) as running:
        read_until(running, "curl ")
        script = "\n".join(lines).replace("var/tokens.env", str(here.place / "tokens.env"))
        said = subprocess.run(["/bin/bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)

    answers = said.stdout.splitlines()
    assert said.stderr == ""
    assert '"state":"pending"' in answers[0]
    assert '"state":"active"' in answers[1]
    assert '"open":true' in answers[2]
    assert '"state":"revoked"' in answers[3]
    assert '"code":"no-open-window"' in answers[4]
    assert re.findall(r'"action":"(\w+)"', answers[5]) == ["submit", "endorse", "approve", "revoke"]
