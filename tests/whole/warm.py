"""Processes of the stack that soon end by themselves, forked from one that has imported what all of them need."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cli.stack import CHECKOUT
from config.children import environment

SECONDS = 60
# Nothing that reads a setting when it is imported: whoever is forked has settings of their own.
MOTHER = """
import gc, json, os, runpy, sys
import api.app, api.serving, celery.concurrency.prefork, lockbox.audit.sealing, lockbox.reconcile, uvicorn

gc.freeze()
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    sys.exit()
os.environ.clear()
os.environ.update(asked["variables"])
for number, path in enumerate((os.devnull, asked["out"], asked["err"])):
    os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
sys.argv = ["", *asked["options"]]
runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)
"""


@dataclass
class Warm:
    """The process that others are forked from, and a folder for what they print."""

    mother: "subprocess.Popen[str]"
    folder: Path

    def run(
        self, module: str, options: list[str], variables: Mapping[str, str]
    ) -> "subprocess.CompletedProcess[str]":
        """Run a module with settings as `python -m` does; it is expected to end by itself within a minute."""
        out, err = (self.folder / name for name in ("out", "err"))
        for path in (out, err):
            path.write_text("")
        asked = {"module": module, "options": options, "variables": environment(variables)}
        assert self.mother.stdin
        assert self.mother.stdout
        print(json.dumps(asked | {"out": str(out), "err": str(err)}), file=self.mother.stdin, flush=True)
        ended, _, _ = select.select([self.mother.stdout], [], [], SECONDS)
        assert ended, f"{module} did not end:\n{out.read_text()}\n{err.read_text()}"
        code = int(self.mother.stdout.readline())
        return subprocess.CompletedProcess([module, *options], code, out.read_text(), err.read_text())


@contextmanager
def warmed(folder: Path) -> Iterator[Warm]:
    """Import once, for as long as the block lasts."""
    mother = subprocess.Popen(
        [sys.executable, "-c", MOTHER],
        env=environment({}),
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with mother:
        try:
            yield Warm(mother, folder)
        finally:
            os.killpg(mother.pid, signal.SIGKILL)
