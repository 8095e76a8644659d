"""Run Schemathesis against a running API, as all roles at once, with all of its checks."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from config.children import environment
from devstack.stack import CHECKOUT

SEED = os.environ.get("CONTRACT_SEED", "20260101")
EXAMPLES = os.environ.get("CONTRACT_EXAMPLES", "5")
MOST_SECONDS = 3000
CALLS = re.compile(r" generated, |^Seed: |^Let in |^=.* in [0-9.]+s")


@dataclass(frozen=True)
class Run:
    """The exit code and the output of a Schemathesis run."""

    code: int
    printed: str

    @property
    def summary(self) -> str:
        """The number of calls, the roles that were let in, and the seed."""
        lines = self.printed.splitlines()
        return "; ".join(line.strip(" =") for line in lines if CALLS.search(line))


def run(api_url: str, tokens: Mapping[str, str], printed: Path, *more: str) -> Run:
    """Call every operation of the API's OpenAPI document as each role, with its token; an empty token is not sent.

    The output goes into a file while the run continues.
    """
    options = ["--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure"]
    bounds = ["--max-examples", EXAMPLES, "--seed", SEED, "--workers", "1", "--request-timeout", "60"]
    quiet = ["--no-color", "--no-shrink", "--generation-database", "none", "--suppress-health-check", "all"]
    program = str(Path(sys.executable).with_name("schemathesis"))
    own = {
        "SCHEMATHESIS_HOOKS": "tests.far.contract_rules",
        "PYTHONPATH": str(CHECKOUT),
        "CONTRACT_TOKENS": json.dumps(dict(tokens)),
    }
    with printed.open("w") as file:
        ended = subprocess.run(
            [program, "run", f"{api_url}/openapi.json", *options, *bounds, *quiet, *more],
            cwd=printed.parent,
            env=environment(own),
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=MOST_SECONDS,
            check=False,
        )
    return Run(ended.returncode, printed.read_text())
