"""The trials at the start of the pages on gateways, guard and webhooks: their commands run exactly as written."""

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.network import HOST
from harness.ports import own_port
from tests.programs import absent
from tests.whole import terminal
from tests.whole.conftest import wait_until
from tests.whole.gateways import KINDS, is_demanded
from tests.whole.terminal import CHECKOUT
from tests.whole.test_run import read_until, run

NGINX = "docs/gateways/nginx.md"
GUARD = "packages/guard-python/README.md"
WEBHOOKS = "docs/how-to/webhooks.md"
SECONDS = 300
PATIENT = r"""
curl() {
  for i in $(seq 30); do
    said=$(command curl "$@")
    case $said in *[Rr]eason:\ behind*|*[Rr]eason:\ busy*|*[Rr]eason:\ no_answer*) sleep 1;; *) break;; esac
  done
  printf '%s\n' "$said"
}
"""
"""Commands of somebody who calls again while Lockbox is too busy to answer."""
SAID = "said"
BASH = shutil.which("bash") or "/bin/bash"
STATUS = re.compile(r"^HTTP/1.1 (\d+)", flags=re.MULTILINE)
REASON = re.compile(r"^lockbox-reason: (\w+)", flags=re.MULTILINE | re.IGNORECASE)

pytestmark = [pytest.mark.far, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class GuideReader:
    """A person in the folder of a checkout, where Lockbox runs; the ports on the pages are replaced by free ones."""

    folder: Path
    ports: dict[str, str]

    def own(self, written: str) -> str:
        """Return a page's commands, or a file that they use, with the replaced ports."""
        for named, ours in self.ports.items():
            written = re.sub(rf"\b{named}\b", ours, written)
        return written

    def type(self, *blocks: str) -> str:
        """Run commands in an interactive-like shell, where jobs have numbers; return all output."""
        path = os.pathsep.join([os.defpath, *(str(found.parent) for one in KINDS.values() if (found := one.find()))])
        with (self.folder / SAID).open("w") as said:
            subprocess.run(
                [BASH, "-m", "-c", self.own("\n".join(blocks))], cwd=self.folder,
                env={"PATH": path, "HOME": str(self.folder)}, stdout=said, stderr=subprocess.STDOUT,
                check=False, timeout=SECONDS,
            )  # fmt: skip
        return (self.folder / SAID).read_text()


def trial(page: str) -> list[str]:
    """Return the blocks of commands with which a page begins."""
    (part,) = re.findall(
        r"^## Try it in \w+ minutes\n(.*?)^## ", (CHECKOUT / page).read_text(), re.DOTALL | re.MULTILINE
    )
    blocks = re.findall(r"^\n((?:    .*\n|\n(?=    ))+)", part, flags=re.MULTILINE)
    return [re.sub(r"^    ", "", block, flags=re.MULTILINE) for block in blocks]


def serving(port: str) -> str:
    """Return a command that waits until a gateway routes calls, as a person who types would."""
    asked = f"curl -s -o /dev/null -w '%{{http_code}}' http://{HOST}:{port}/"
    return f"for i in $(seq 600); do case $({asked}) in 000|404) sleep 0.1;; *) break;; esac; done\n"


def reading(condition: str) -> str:
    """Return a command by which `sleep` lasts until a condition holds for what was printed, as a reader would."""
    return f"sleep() {{ for i in $(seq 120); do {condition} && break; command sleep 0.5; done; }}\n"


@pytest.fixture(scope="module")
def reader() -> Iterator[GuideReader]:
    with terminal.opened() as here:
        folder = here.place / "checkout"
        made = GuideReader(folder, {port: str(own_port()) for port in ("8080", "8081", "9000")})
        _unpack(made)
        prepare, starts = trial(NGINX)[0].rsplit("\n", 2)[:2]
        assert starts == "LOCKBOX_CATALOGUE=var/try/catalogue.yaml make run"
        made.type(prepare)
        with run(here, LOCKBOX_CATALOGUE=str(folder / "var" / "try" / "catalogue.yaml")) as running:
            read_until(running, "curl ")
            shutil.copy(here.place / "tokens.env", folder / "var")
            yield made
            running.terminate()
            running.communicate(timeout=SECONDS)


def _unpack(made: GuideReader) -> None:
    shutil.copytree(CHECKOUT / "deploy", made.folder / "deploy")
    (made.folder / ".venv").symlink_to(sys.prefix)
    for sample in (made.folder / "deploy").rglob("*"):
        if "gateways" in sample.parts and sample.is_file():
            sample.write_text(made.own(sample.read_text()))
    # Where nginx was unpacked and not installed, it misses its folders.
    settings = "".join(
        f"{name}_temp_path {made.folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    sample = made.folder / "deploy" / "gateways" / "nginx.conf"
    sample.write_text(sample.read_text().replace("http {\n", f"http {{\n{settings}", 1))


def is_free(port: str) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex((HOST, int(port))) != 0


@pytest.mark.parametrize("kind", ["nginx", "caddy", "traefik"])
def test_the_gateway_of_each_guide_serves_only_with_a_window(reader: GuideReader, kind: str) -> None:
    if KINDS[kind].find() is None:
        (pytest.fail if is_demanded() else pytest.skip)(absent(kind))
    start, stop = (
        trial(f"docs/gateways/{kind}.md")[-3 if kind == "nginx" else 0],
        trial(f"docs/gateways/{kind}.md")[-1],
    )

    said = reader.type(start, serving("8080"), PATIENT, trial(NGINX)[-2], stop)

    assert STATUS.findall(said) == ["403", "200", "403"], said
    assert REASON.findall(said) == ["no_window", "no_window"]
    assert "Anna's mail" in said
    wait_until(lambda: is_free(reader.ports["8080"]) and is_free(reader.ports["9000"]), "an end")


def test_the_guard_of_each_guide_admits_only_with_a_window(reader: GuideReader) -> None:
    start, uses = trial(GUARD)

    latest = f"now=$(grep -E '^403 no_window|^Anna' {SAID} | tail -1 | cut -c -5)"
    until_another = reading(f'{latest}; [ "$now" != "$known" ] && known=$now')

    said = reader.type(start, until_another, "sleep 5\n", uses, "kill %1")

    # A guard that hears nothing for a moment is behind.
    answers = re.findall(r"^(403 (?!behind)\w+|Anna's mail, until 20)", said, flags=re.MULTILINE)
    assert [one for before, one in zip(["", *answers], answers, strict=False) if one != before] == [
        "403 no_window",
        "Anna's mail, until 20",
        "403 no_window",
    ], said


def test_the_webhook_receiver_of_a_guide_gets_a_request_once_the_customer_is_asked(reader: GuideReader) -> None:
    add, start, acts = trial(WEBHOOKS)

    until_called = reading(f"[ $(grep -c '^[0-9]* request' {SAID}) -ge 2 ]")

    said = reader.type(add, start, serving("8080"), until_called, acts, "kill %1")

    assert re.findall(r"^\d+ (request\.\w+ \w+)$", said, flags=re.MULTILINE) == [
        "request.endorsed pending",
        "request.denied denied",
    ], said
