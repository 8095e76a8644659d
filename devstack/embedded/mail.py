"""The mail catcher, which accepts every message and forwards none."""

import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from devstack.embedded.folder import DataFolder, EmbeddedRefused, FolderState
from devstack.embedded.processes import ProcessMark, run, tail, wait_gone

STOP_SECONDS = 30
ANSWER_SECONDS = 2
CATCHER = ("-P", "-m", "devstack.embedded.catcher")


@dataclass(frozen=True)
class MailCatcher:
    home: DataFolder
    state: FolderState
    name = "mail"

    @property
    def mark(self) -> ProcessMark:
        return ProcessMark(self.home.uid, "", (*CATCHER, str(self.home.folder)))

    @property
    def log(self) -> Path:
        return self.home.folder / "mail.log"

    def launch(self) -> int:
        command = [sys.executable, *CATCHER, str(self.home.folder), str(self.state.ports[self.name])]
        if self.home.account:
            command += [str(self.home.account.uid), str(self.home.account.gid)]
        # The interpreter and the packages may be readable only by root: the catcher drops its rights itself.
        places = [str(Path(__file__).parents[2]), *filter(os.path.isabs, sys.path)]
        return int(run(self.home, command, env={"PYTHONPATH": os.pathsep.join(places)}, as_root=True))

    def answers(self) -> bool:
        try:
            with socket.create_connection(
                ("127.0.0.1", self.state.ports[self.name]), timeout=ANSWER_SECONDS
            ) as connection:
                with connection.makefile("rb") as reply:
                    greeting = reply.readline()
                connection.sendall(b"QUIT\r\n")
        except OSError:
            return False
        return greeting.startswith(b"220 ") and greeting.endswith(b" Lockbox mail catcher\r\n")

    def settle(self) -> None:
        """Do nothing: the mail catcher needs no set-up."""

    def stop(self, process: psutil.Process) -> None:
        process.terminate()
        if not wait_gone(process, STOP_SECONDS):
            raise EmbeddedRefused(f"the mail catcher (pid {process.pid}) did not stop\n{tail(self.log)}")
