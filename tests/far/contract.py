"""Run Schemathesis against a running API, as somebody with one role, with all of its checks."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from config.children import environment
from devstack.stack import CHECKOUT

SEED = os.environ.get("CONTRACT_SEED", "20260101")
EXAMPLES = os.environ.get("CONTRACT_EXAMPLES", "5")
MOST_SECONDS = 1500
SHORTER = ("--config-file", str(Path(__file__).with_name("contract.toml")))
CALLS = re.compile(r"generated|Seed| in [0-9.]+s")


@dataclass(frozen=True)
class Run:
    """What a run of Schemathesis ended with and what it printed."""

    code: int
    printed: str

    @property
    def summary(self) -> str:
        """The end of what it printed: failures, how many calls were made, and the seed."""
        lines = self.printed.strip().splitlines()[-12:]
        return "; ".join(line.strip(" =") for line in lines if CALLS.search(line))


def run(api_url: str, token: str | None, printed: Path, *more: str, is_shorter: bool = False) -> Run:
    """Call every operation of the API's own OpenAPI document; whoever has no token is anonymous.

    What is printed goes into a file as it comes. Where it `is_shorter`, invalid input is made at random alone.
    """
    headers = ["--header", f"Authorization: Bearer {token}"] if token else []
    options = ["--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--continue-on-failure"]
    bounds = ["--max-examples", EXAMPLES, "--seed", SEED, "--workers", "1", "--request-timeout", "60"]
    quiet = ["--no-color", "--no-shrink", "--generation-database", "none", "--suppress-health-check", "all"]
    program = [str(Path(sys.executable).with_name("schemathesis")), *(SHORTER if is_shorter else ())]
    command = [*program, "run", f"{api_url}/openapi.json"]
    with printed.open("w") as file:
        ended = subprocess.run(
            [*command, *options, *bounds, *quiet, *headers, *more],
            cwd=printed.parent,
            env=environment({"SCHEMATHESIS_HOOKS": "tests.far.contract_rules", "PYTHONPATH": str(CHECKOUT)}),
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=MOST_SECONDS,
            check=False,
        )
    return Run(ended.returncode, printed.read_text())
