"""`lockbox doctor`: check this machine's settings and servers."""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer
from pydantic import SecretStr
from rich.text import Text

from cli.client import stop
from cli.doctor import environment
from cli.doctor.files import check_folders, check_keys
from cli.doctor.findings import DoctorFinding, FindingLevel, failure, worst
from cli.doctor.https import check_https
from cli.doctor.issuers import check_issuers
from cli.doctor.machine import check_disk, check_ports
from cli.doctor.mail_relay import check_mail_relay
from cli.doctor.postgres import check_postgres
from cli.doctor.redis_server import check_redis
from cli.doctor.unit import ServiceUnit, UnitRefused
from cli.terminal import as_json, paper
from config.children import given as given_variables
from config.logging import masked
from config.settings import Settings
from devstack import embedded
from devstack.embedded import EmbeddedRefused
from devstack.stack import CHECKOUT

app = typer.Typer()
STYLES = {FindingLevel.OK: "green", FindingLevel.WARNING: "yellow", FindingLevel.FAILURE: "bold red"}
STARS = "***"
SHORTEST = 3
"""A shorter password would be found in any text."""


class DoctorOutput(StrEnum):
    TABLE = "table"
    JSON = "json"


@app.command()
def doctor(
    output: Annotated[DoctorOutput, typer.Option(help="for people, or for programs")] = DoctorOutput.TABLE,
    folder: Annotated[Path | None, typer.Option(help="data folder of embedded servers", show_default=False)] = None,
    unit: Annotated[
        str | None, typer.Option(help="a unit of systemd, such as lockbox-api, as whose process it looks; as root")
    ] = None,
) -> None:
    """Check the settings and servers of this machine.

    It says how to fix what is wrong. Run it with the environment of the processes and as their user, or as root with
    --unit, which does both. If no server is set, it looks at the servers of `make run`. It changes nothing and sends
    no mail; no password is printed. The exit code is 1 if anything keeps a process from its work or endangers data.
    """
    findings = examine(given_variables(), folder) if unit is None else examine_unit(unit)
    if output is DoctorOutput.JSON:
        as_json(
            {"ok": worst(findings) is not FindingLevel.FAILURE, "findings": [vars(finding) for finding in findings]}
        )
    else:
        show(findings)
    raise typer.Exit(1 if worst(findings) is FindingLevel.FAILURE else 0)


def examine_unit(name: str) -> list[DoctorFinding]:
    command = [sys.executable, "-m", "cli", "doctor"]
    try:
        unit = ServiceUnit.read(name)
        if os.geteuid() != 0:
            raise stop(f"--unit takes root, which becomes the user of the unit. As root: {unit.transient(command)}")
        said = unit.run(lambda: json.dumps([vars(one) for one in examine(given_variables())]))
    except UnitRefused as refused:
        raise stop(str(refused)) from None
    found = [DoctorFinding(**one) for one in json.loads(said)]
    return [
        *unit.check_files(),
        *unit.check_sandbox(),
        *(replace(one, level=FindingLevel(one.level)) for one in found),
    ]


def examine(given: Mapping[str, str], folder: Path | None = None) -> list[DoctorFinding]:
    """Findings contain no secret."""
    settings, found = environment.read_settings(given)
    if settings is None:
        return [_without_secrets(finding, ()) for finding in found]
    if environment.is_empty(settings):
        settings = _embedded(settings, folder)
    if environment.is_empty(settings):
        found.append(failure("Servers", "no server is set, and none of `make run` runs", environment.UNSET))
    # The checks log as the processes do. Their log goes to stderr, so that stdout has only the findings.
    with redirect_stdout(sys.stderr):
        found += _checked(settings, given)
    return [_without_secrets(finding, _secrets(settings)) for finding in found]


def _checked(settings: Settings, given: Mapping[str, str]) -> Iterator[DoctorFinding]:
    yield from check_ports(settings, given)
    yield from check_postgres(settings)
    yield from check_redis(settings)
    yield from check_mail_relay(settings)
    yield from check_https(settings)
    yield from check_issuers(settings)
    yield from check_keys(settings)
    yield from check_folders(settings)
    yield from check_disk(settings)


def _embedded(settings: Settings, folder: Path | None) -> Settings:
    if settings.environment == "production":
        return settings
    with suppress(EmbeddedRefused):
        servers = embedded.find(folder or embedded.default_folder(CHECKOUT))
        if servers.pids:
            urls = {name: SecretStr(url) for name in environment.SERVERS if (url := getattr(servers, name, ""))}
            return settings.model_copy(update=urls)
    return settings


def _secrets(settings: Settings) -> Iterator[str]:
    for name in Settings.model_fields:
        value = getattr(settings, name)
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, SecretStr):
                yield from _parts_of(one.get_secret_value())


def _parts_of(secret: str) -> Iterator[str]:
    yield secret
    with suppress(ValueError):
        if password := urlsplit(secret).password:
            yield from (password, unquote(password))


def _without_secrets(finding: DoctorFinding, secrets: Iterable[str]) -> DoctorFinding:
    """Replace secrets by stars: a server's message may repeat them."""
    says, fix = masked(finding.says), finding.fix
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= SHORTEST:
            says, fix = says.replace(secret, STARS), fix.replace(secret, STARS)
    return DoctorFinding(finding.check, finding.level, says, fix)


def show(findings: list[DoctorFinding]) -> None:
    console = paper()
    width = max(len(finding.check) for finding in findings)
    for one in findings:
        line = Text.assemble((f"{one.level:<8}", STYLES[one.level]), f"{one.check:<{width}}  {one.says}")
        console.print(line, soft_wrap=True)
        if one.fix:
            console.print(Text.assemble(" " * 8, ("fix: ", "bold"), one.fix), soft_wrap=True)
    wrong = [sum(one.level is level for one in findings) for level in (FindingLevel.FAILURE, FindingLevel.WARNING)]
    failures, warnings = wrong
    console.print(f"{failures} failures, {warnings} warnings" if any(wrong) else "All is well.", highlight=False)
