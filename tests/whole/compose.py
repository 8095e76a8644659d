"""docker-compose.yml as the tests read it: its services, what each gets, and the command that each runs."""

import re
from functools import cache
from typing import Any

from ruamel.yaml import YAML

from devstack.stack import CHECKOUT

FILE = CHECKOUT / "docker-compose.yml"
SCRIPTS = CHECKOUT / "deploy" / "compose"
IMAGE = "lockbox:local"


@cache
def compose() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(FILE.read_text())
    return found


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def ours() -> dict[str, dict[str, Any]]:
    return {name: service for name, service in services().items() if service["image"] == IMAGE}


def seconds(duration: str) -> int:
    found = re.fullmatch(r"(\d+)s", duration)
    assert found
    return int(found.group(1))


def option(service: dict[str, Any], name: str) -> str:
    """Return the value that follows an option in the command of a service."""
    command: list[str] = service["command"]
    return command[command.index(name) + 1]
