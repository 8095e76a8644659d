"""The README's walk with curl, typed as it stands there against `make run`."""

import re
import signal
import subprocess
from pathlib import Path

from tests.whole import terminal
from tests.whole.test_run import read_until, run

README = Path(__file__).resolve().parents[2] / "README.md"


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
