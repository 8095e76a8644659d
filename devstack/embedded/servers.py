"""Start and stop the servers of one folder together, and kill individual servers for tests."""

import contextlib
import secrets
import socket
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import psutil

from config import ports
from devstack.embedded.folder import (
    DataFolder,
    EmbeddedRefused,
    FolderState,
    find_home,
    locked,
    open_home,
    read_state,
    write_state,
)
from devstack.embedded.mail import MailCatcher
from devstack.embedded.postgres import Postgres
from devstack.embedded.processes import ProcessMark, alive, recorded, search, tail, wait_gone, wait_until
from devstack.embedded.programs import programs_for
from devstack.embedded.valkey import Valkey

NAMES = ("postgres", "redis", "mail")
ANSWER_SECONDS = 30
KILL_SECONDS = 10
# Below every system's range of outgoing ports: a client that reconnects to a stopped server from that range can
# connect to itself and take the port.
PORTS = range(20000, 32000)


class EmbeddedServer(Protocol):
    @property
    def name(self) -> str: ...  # its key in the state

    @property
    def mark(self) -> ProcessMark: ...  # how its process is recognised

    @property
    def log(self) -> Path: ...  # its log file

    def launch(self) -> int: ...  # start it, return its pid
    def answers(self) -> bool: ...  # whether it can be used
    def settle(self) -> None: ...  # do what remains once it answers
    def stop(self, process: psutil.Process) -> None: ...  # end it cleanly


@dataclass(frozen=True)
class ServerAddresses:
    """An address is empty if its server was not requested."""

    folder: Path
    superuser_url: str
    owner_database_url: str
    database_url: str
    worker_database_url: str
    notifications_database_url: str
    connectors_database_url: str
    redis_url: str
    smtp_url: str
    maildir: Path

    @property
    def pids(self) -> Mapping[str, int]:
        home = find_home(self.folder)
        state = read_state(home)
        found = {server.name: recorded(server.mark, state.pids.get(server.name)) for server in _all(home, state)}
        return {name: process.pid for name, process in found.items() if process}

    def stop(self) -> None:
        if not self.folder.exists():
            return
        home = find_home(self.folder)
        with locked(home):
            state = read_state(home)
            for server in _all(home, state):
                _stop(server, state)
            write_state(home, state)

    def kill(self, name: str) -> None:
        home = find_home(self.folder)
        state = read_state(home)
        server = _named(home, state, name)
        process = search(server.mark, state.pids.get(name))
        if not process:
            return
        process.kill()
        if not wait_gone(process, KILL_SECONDS):
            raise EmbeddedRefused(f"{name} (pid {process.pid}) outlived SIGKILL for {KILL_SECONDS} s")

    def start_again(self, name: str, *, empty: bool = False) -> None:
        home = find_home(self.folder)
        with locked(home):
            state = read_state(home)
            server = _named(home, state, name)
            if empty and not isinstance(server, Valkey):
                raise ValueError("only Redis can be started empty")
            if not search(server.mark, state.pids.get(name)):
                if not _free(state.ports[name]):
                    raise EmbeddedRefused(f"port {state.ports[name]} of {name} was taken by another process")
                if isinstance(server, Valkey) and empty:
                    server.forget()
            elif empty:
                raise EmbeddedRefused("Redis still runs: kill it before it is started empty")
            state.pids[name] = _ensure(server, state)
            write_state(home, state)


def start(folder: Path, *, environment: str = "development", only: Collection[str] = NAMES) -> ServerAddresses:
    """Start the servers that are not running yet, and wait until all answer. Concurrent calls are safe.

    Raises EmbeddedRefused in production, in a folder that is not ours, or if a server does not come up; then the
    servers that this call started are stopped again.
    """
    if environment.strip().lower() == "production":
        raise EmbeddedRefused("the embedded servers are for development and tests: production brings its own")
    if unknown := set(only) - set(NAMES):
        raise ValueError(f"no such servers: {', '.join(sorted(unknown))}")
    home = open_home(folder)
    with locked(home):
        state = read_state(home)
        wanted = [server for server in _all(home, state) if server.name in only]
        launched = [server for server in wanted if not search(server.mark, state.pids.get(server.name))]
        for server in launched:
            _choose_port(state, server.name)
        write_state(home, state)
        if launched:
            programs_for(home)
        try:
            with ThreadPoolExecutor(len(NAMES)) as pool:
                pids = list(pool.map(partial(_ensure, state=state), wanted))
            state.pids |= {server.name: pid for server, pid in zip(wanted, pids, strict=True)}
        except BaseException:
            for server in launched:
                with contextlib.suppress(EmbeddedRefused):
                    _stop(server, state)
            raise
        finally:
            write_state(home, state)
        return _addresses(home, state, only)


def find(folder: Path) -> ServerAddresses:
    """The servers need not be running."""
    home = find_home(folder)
    state = read_state(home)
    return _addresses(home, state, state.ports)


def _all(home: DataFolder, state: FolderState) -> tuple[EmbeddedServer, ...]:
    return Postgres(home, state), Valkey(home, state), MailCatcher(home, state)


def _named(home: DataFolder, state: FolderState, name: str) -> EmbeddedServer:
    for server in _all(home, state):
        if server.name == name:
            return server
    raise ValueError(f"no such server: {name}")


def _ensure(server: EmbeddedServer, state: FolderState) -> int:
    running = search(server.mark, state.pids.get(server.name))
    pid = running.pid if running else server.launch()

    def settled() -> bool:
        return server.answers() or not alive(pid)

    if not wait_until(settled, ANSWER_SECONDS) or not recorded(server.mark, pid):
        raise EmbeddedRefused(f"{server.name} (pid {pid}) does not answer; its log ends:\n{tail(server.log)}")
    server.settle()
    return pid


def _stop(server: EmbeddedServer, state: FolderState) -> None:
    process = search(server.mark, state.pids.get(server.name))
    if process:
        process.resume()  # so that a server that a test froze ends too
        server.stop(process)
    state.pids.pop(server.name, None)


def _choose_port(state: FolderState, name: str) -> None:
    taken = {port for other, port in state.ports.items() if other != name}
    port = state.ports.get(name)
    if port is None or port in taken or not _free(port):
        free = (one for one in secrets.SystemRandom().sample(PORTS, len(PORTS)) if one not in taken)
        port = next((one for one in free if ports.take(one) and _free(one)), None)
    if port is None:
        raise EmbeddedRefused(f"all ports from {PORTS.start} to {PORTS.stop - 1} are in use: end some servers")
    state.ports[name] = port


def _free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def _addresses(home: DataFolder, state: FolderState, names: Collection[str]) -> ServerAddresses:
    def database_url(role: str, user: str, database: str) -> str:
        if "postgres" not in names:
            return ""
        return f"postgresql+psycopg://{user}:{state.passwords[role]}@127.0.0.1:{state.ports['postgres']}/{database}"

    redis_url = f"redis://:{state.passwords['redis']}@127.0.0.1:{state.ports.get('redis')}/0"
    return ServerAddresses(
        folder=home.folder,
        superuser_url=database_url("superuser", "postgres", "postgres"),
        owner_database_url=database_url("owner", "lockbox_owner", "lockbox"),
        database_url=database_url("api", "lockbox_api", "lockbox"),
        worker_database_url=database_url("worker", "lockbox_worker", "lockbox"),
        notifications_database_url=database_url("notifications", "lockbox_notifications", "lockbox"),
        connectors_database_url=database_url("connectors", "lockbox_connectors", "lockbox"),
        redis_url=redis_url if "redis" in names else "",
        smtp_url=f"smtp://127.0.0.1:{state.ports.get('mail')}" if "mail" in names else "",
        maildir=home.folder / "mail",
    )
