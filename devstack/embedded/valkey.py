"""Run Valkey, the Redis-compatible server."""

import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

from devstack.embedded.folder import DataFolder, EmbeddedRefused, FolderState, make_folder, write_private
from devstack.embedded.processes import ProcessMark, run, tail, wait_gone
from devstack.embedded.programs import programs_for

STOP_SECONDS = 30
ANSWER_SECONDS = 2
# Without set-proc-title the command line stays as it is, and identifies the server.
SETTINGS = """\
bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
dir "{data}"
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
logfile "{log}"
daemonize no
set-proc-title no
"""
# The shell hands the server over to init, so that it outlives us and never becomes our zombie.
APART = '"$@" </dev/null >/dev/null 2>>"$LOG" & echo $!'


@dataclass(frozen=True)
class Valkey:
    home: DataFolder
    state: FolderState
    name = "redis"

    @property
    def mark(self) -> ProcessMark:
        return ProcessMark(self.home.uid, "valkey-server", (str(self._settings),))

    @property
    def log(self) -> Path:
        return self.home.folder / "redis.log"

    def launch(self) -> int:
        if not self._data.exists():
            make_folder(self._data, self.home.account)
        settings = SETTINGS.format(
            port=self.state.ports[self.name],
            password=self.state.passwords["redis"],
            data=_quoted(self._data),
            log=_quoted(self.log),
        )
        write_private(self._settings, settings, self.home.account)
        command = ["/bin/sh", "-c", APART, "sh", str(programs_for(self.home).valkey), str(self._settings)]
        return int(run(self.home, command, env={"LOG": str(self.log)}))

    def answers(self) -> bool:
        try:
            with socket.create_connection(
                ("127.0.0.1", self.state.ports[self.name]), timeout=ANSWER_SECONDS
            ) as connection:
                connection.sendall(f"AUTH {self.state.passwords['redis']}\r\nPING\r\nQUIT\r\n".encode())
                with connection.makefile("rb") as reply:
                    return reply.readline() == b"+OK\r\n" and reply.readline() == b"+PONG\r\n"
        except OSError:
            return False

    def settle(self) -> None:
        """Do nothing: Valkey needs no set-up."""

    def stop(self, process: psutil.Process) -> None:
        process.terminate()
        if not wait_gone(process, STOP_SECONDS):
            raise EmbeddedRefused(f"Redis (pid {process.pid}) did not stop\n{tail(self.log)}")

    def forget(self) -> None:
        shutil.rmtree(self._data, ignore_errors=True)

    @property
    def _data(self) -> Path:
        return self.home.folder / "redis"

    @property
    def _settings(self) -> Path:
        return self.home.folder / "redis.conf"


def _quoted(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace('"', '\\"')
