"""`make run`, as a newcomer uses it: what it prints works as printed, and Ctrl-C leaves nothing behind."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from config.children import environment
from harness.network import HOST
from harness.ports import own_port
from tests.whole import terminal
from tests.whole.conftest import wait_until
from tests.whole.terminal import ModuleRunner

TUTORIAL = terminal.CHECKOUT / "docs" / "tutorial.md"
SECONDS = 200
get = partial(httpx.get, timeout=30, trust_env=False)


@pytest.fixture(scope="module")
def here() -> Iterator[ModuleRunner]:
    with terminal.opened() as opened:
        yield opened


@pytest.fixture
def fresh() -> Iterator[ModuleRunner]:
    """A terminal where nothing was ever started, because mails of an earlier run link to that run's address."""
    with terminal.opened() as opened:
        yield opened


@contextmanager
def run(here: ModuleRunner, *options: str, **variables: str) -> "Iterator[subprocess.Popen[str]]":
    """Start `make run`; if the block fails, kill the run, which might never end by itself."""
    files = ["--tokens", str(here.place / "tokens.env"), "--log", str(log_of(here))]
    ports = ["--port", str(own_port()), "--flower-port", str(own_port())]
    with here.start("devstack.run", "--folder", str(here.folder), *files, *ports, *options, **variables) as running:
        try:
            yield running
        except BaseException:
            running.kill()
            raise


def log_of(here: ModuleRunner) -> Path:
    return here.place / "run.log"


def ask(said: str) -> "subprocess.CompletedProcess[str]":
    script = "\n".join(said.splitlines()[-2:])
    return subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=False)


def read_until(process: "subprocess.Popen[str]", begins: str) -> str:
    assert process.stdout
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith(begins):
            return said
    raise AssertionError(f"it ended without a line that begins with {begins!r}:\n{said}")


def playground(said: str) -> str:
    """Return the printed address, without the path."""
    printed = re.search(r"Open +(http://localhost:\d+)/play", said)
    assert printed, said
    return printed[1]


def play(said: str, who: str, path: str) -> tuple[str, str]:
    """Open the printed address as a demo user, wait for Ann's prompt, and return the account page and the prompt."""
    url = playground(said)
    with httpx.Client(base_url=url, headers={"origin": url}, timeout=30, trust_env=False) as browser:
        assert "Be Erin, and request access" in browser.get("/play").text
        assert browser.post("/play", data={"who": who, "next": path}).headers["location"] == path
        wait_until(lambda: "Approval needed" in browser.get("/inbox?to=ann@contoso.example").text, "a mail")
        inbox = browser.get("/inbox?to=ann@contoso.example").text
        (mail,) = re.findall(r'href="(/inbox/\w+)"><b>Approval needed', inbox)
        return browser.get("/account").text, browser.get(mail).text


def servers(folder: Path) -> tuple[str, str]:
    """Return what `lockbox operate status` says of Postgres and Redis."""
    ended = subprocess.run(
        [sys.executable, "-m", "cli", "operate", "status", "--output", "json", "--folder", str(folder)],
        env=environment({}), cwd=terminal.CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = json.loads(ended.stdout)
    return said["postgres"], said["redis"]


@dataclass(frozen=True)
class MadeRun:
    """The results of one run, from its first line to Ctrl-C; `taken` says why its ports were unavailable."""

    here: ModuleRunner
    port: int
    said: str
    taken: Sequence[str]
    answers: Mapping[str, httpx.Response]
    curl: "subprocess.CompletedProcess[str]"
    tutorial: "subprocess.CompletedProcess[str]"
    played: tuple[str, str]
    known: Mapping[str, str]
    code: int
    left: Sequence[str]


@pytest.fixture(scope="module")
def made() -> Iterator[MadeRun]:
    """A run on an empty folder; the tutorial comes last, because it also requests access."""
    port, flower = own_port(), own_port()
    with terminal.opened() as here, run(here, "--port", str(port), "--flower-port", str(flower)) as running:
        said = read_until(running, "Starting Postgres")
        taken = [why for one in (port, flower) if (why := refusal(one))]
        said += read_until(running, "curl ")
        curl = ask(said)
        wait_until(lambda: get(f"http://{HOST}:{port}/readyz").status_code == 200, "the API is ready")
        answers = {
            "flower": get(f"http://{HOST}:{flower}/healthcheck"),
            "elsewhere": get(f"{playground(said)}/play", headers={"host": "evil.example"}),
        }
        watched = re.search(r"Flower +(\S+).*\n.*user (\S+), password in ", said)
        assert watched
        password = (here.place / "flower-password").read_text().strip()
        answers["workers"] = get(f"{watched[1]}/api/workers", auth=(watched[2], password))
        played = play(said, "ann", "/account")
        wait_until(lambda: servers(here.folder) == ("ok", "ok"), "status says that the servers are well")
        known = dict(line.split("=", 1) for line in (here.place / "tokens.env").read_text().splitlines())
        bearer = {"authorization": f"Bearer {known['MAX']}"}
        answers["mine"] = get(f"{known['API']}/v1/requests", headers=bearer)
        script = "\n".join(re.findall(r"^    (.*)$", TUTORIAL.read_text(), re.MULTILINE))
        tutorial = subprocess.run(
            ["/bin/bash", "-c", script.replace("var/tokens.env", str(here.place / "tokens.env"))],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=SECONDS)
        yield MadeRun(
            here, port, said, taken, answers, curl, tutorial, played, known, running.returncode, here.left()
        )


def refusal(port: int) -> str:
    """Return why no other process can serve at a port; empty if one can."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError as refused:
        return str(refused)
    return ""


@pytest.mark.far
def test_make_run_reserves_the_ports_of_api_and_flower_until_they_serve(made: MadeRun) -> None:
    assert ["in use" in why for why in made.taken] == [True, True]
    assert playground(made.said) == f"http://localhost:{made.port}"
    assert made.answers["flower"].text == "OK"


@pytest.mark.far
def test_the_commands_and_links_printed_by_make_run_work_and_ctrl_c_stops_everything(made: MadeRun) -> None:
    account, mail = made.played
    place, mine = made.here.place, made.answers["mine"].json()["items"]

    assert '"state":"reviewing"' in made.curl.stdout
    assert not set(re.findall(r"lbx_\w+|\S+ \| ", made.said))
    assert made.said.startswith("Starting Postgres, Redis and a mail catcher …\nBringing the database up to date …\n")
    assert made.answers["workers"].status_code == 200
    assert "You are playing <b>Ann Archer</b> (approver)" in account
    assert re.search(r'href="http://localhost:\d+/requests/[0-9a-f-]{36}"', mail)
    assert made.answers["elsewhere"].status_code == 403
    for name in ("playground.json", "tokens.env", "flower-password", "run.log"):
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o600
    assert {"api", "worker", "notifications", "flower"} <= set(
        re.findall(r"^[\d:]+ (\w+) +\| ", log_of(made.here).read_text(), re.MULTILINE)
    )
    assert {item["requester"]["id"] for item in mine} == {made.known["ERIN_ID"]}
    assert sorted(item["state"] for item in mine) == ["denied", "pending", "reviewing", "reviewing"]
    assert (made.code, made.left) == (0, [])


@pytest.mark.far
def test_the_curl_tutorial_works_as_written(made: MadeRun) -> None:
    answers = made.tutorial.stdout.splitlines()

    assert made.tutorial.stderr == ""
    assert '"state":"pending"' in answers[0]
    assert '"state":"active"' in answers[1]
    assert '"open":true' in answers[2]
    assert '"state":"revoked"' in answers[3]
    assert '"code":"no-open-window"' in answers[4]
    actions = re.findall(r'"action":"(\w+)"', answers[5])
    assert [action for action in actions if action != "notified"] == ["submit", "endorse", "approve", "revoke"]


@pytest.mark.far
def test_the_verbose_option_of_make_run_prints_the_logs_and_writes_no_file(fresh: ModuleRunner) -> None:
    with run(fresh, "--verbose") as running:
        said = read_until(running, "curl ")
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=SECONDS)

    assert re.search(r"^[\d:]+ api +\| ", said, re.MULTILINE)
    assert "run.log" not in said
    assert not log_of(fresh).exists()


@pytest.mark.parametrize(
    ("given", "options"),
    [([], ""), (["PORT=1234"], "--port 1234"), (["PORT=1234", "VERBOSE=1"], "--port 1234 --verbose")],
    ids=str,
)
def test_make_run_passes_its_variables_on_as_options(given: Sequence[str], options: str) -> None:
    printed = subprocess.run(
        [shutil.which("make") or "make", "--dry-run", "run", *given],
        cwd=terminal.CHECKOUT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout

    assert " ".join(printed.splitlines()[-1].partition(" -m ")[2].split()) == f"devstack.run {options}".strip()


@pytest.mark.far
def test_make_run_accepts_a_catalogue_and_names_ignored_settings(fresh: ModuleRunner) -> None:
    own = fresh.place / "own.yaml"
    own.write_text("services: {payroll: {title: Payroll, actions: [export]}}\nplans: {standard: {}}\n")
    given = {"LOCKBOX_CATALOGUE": str(own), "LOCKBOX_CATALOG": str(own), "LOCKBOX_PUBLIC_URL": "http://localhost:1"}
    with run(fresh, **given) as running:
        said = read_until(running, "curl ")
        curl = ask(said)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=SECONDS)

    assert json.loads(curl.stdout)["service"] == "payroll"
    assert json.loads(curl.stdout)["actions"] == ["export"]
    assert "LOCKBOX_CATALOG is not passed on: there is no such setting; did you mean LOCKBOX_CATALOGUE?" in said
    assert "LOCKBOX_PUBLIC_URL is not passed on: it follows from the port" in said
    assert "LOCKBOX_CATALOGUE is not" not in said
    assert running.returncode == 0


def workers(running: "subprocess.Popen[str]") -> set[int]:
    """Return the pids of core workers without their pools."""
    found = set()
    for keeper in psutil.Process(running.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if keeper.cmdline()[2:] == ["devstack.restart", "python", "-m", "worker", "core"]:
                found |= {one.pid for one in keeper.children()}
    return found


@pytest.mark.far
def test_make_run_restarts_a_dead_worker_and_ends_if_the_api_dies(
    here: ModuleRunner,
) -> None:
    with run(here) as running:
        read_until(running, "curl ")
        (worker,) = workers(running)
        psutil.Process(worker).kill()
        wait_until(lambda: workers(running) - {worker}, "another worker")
        [api] = [one for one in psutil.Process(running.pid).children(recursive=True) if "api" in one.cmdline()]
        api.kill()
        said, _ = running.communicate(timeout=SECONDS)

    assert running.returncode == 1
    assert "The process api ended by itself" in said
    assert f"All logs: {log_of(here)}" in said
    assert here.left() == []


@pytest.mark.far
def test_make_run_refuses_production(here: ModuleRunner) -> None:
    with run(here, LOCKBOX_ENVIRONMENT="production") as running:
        _, complained = running.communicate(timeout=SECONDS)

    assert running.returncode == 1
    assert "production" in complained
