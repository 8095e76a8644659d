"""Run a Postgres cluster with initdb and pg_ctl."""

import contextlib
import hashlib
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from devstack.embedded.folder import DataFolder, EmbeddedRefused, FolderState, write_private
from devstack.embedded.processes import ProcessMark, living_in, run, tail, wait_gone, wait_until
from devstack.embedded.programs import programs_for

ROLES_SQL = Path(__file__).parents[2] / "config" / "roles.sql"
START_SECONDS = 30
STOP_SECONDS = 60
LEFTOVER_SECONDS = 1
SETTINGS = """\
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 200
shared_buffers = 128MB
fsync = on
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
lc_messages = 'C'
"""


@dataclass(frozen=True)
class Postgres:
    home: DataFolder
    state: FolderState
    name = "postgres"

    @property
    def mark(self) -> ProcessMark:
        return ProcessMark(self.home.uid, "postgres", ("-D", str(self._data)))

    @property
    def log(self) -> Path:
        return self.home.folder / "postgres.log"

    def launch(self) -> int:
        if not self._data.exists():
            self._make_cluster()
        self._heal()
        settings = self.home.folder / "postgres.conf"
        write_private(settings, SETTINGS.format(port=self.state.ports[self.name]), self.home.account)
        options = shlex.join(["-c", f"config_file={settings}"])
        command = ["start", "-s", "-w", "-t", str(START_SECONDS), "-l", str(self.log), "-D", str(self._data)]
        try:
            self._run("pg_ctl", *command, "-o", options)
            return int(self._pid_file.read_text().split()[0])
        except (EmbeddedRefused, OSError) as error:
            raise EmbeddedRefused(f"{error}\n{tail(self.log)}") from None

    def answers(self) -> bool:
        try:
            psycopg.connect(
                host="127.0.0.1",
                port=self.state.ports[self.name],
                user="postgres",
                password=self.state.passwords["superuser"],
                dbname="postgres",
                connect_timeout=5,
            ).close()
        except psycopg.OperationalError:
            return False
        return True

    def settle(self) -> None:
        """Create roles and database with roles.sql, unless that version of the file was run before."""
        sql = ROLES_SQL.read_bytes()
        wanted = hashlib.sha256(sql).hexdigest()
        if self.state.roles == wanted:
            return
        env = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.state.ports[self.name]),
            "PGUSER": "postgres",
            "PGDATABASE": "postgres",
            "PGPASSWORD": self.state.passwords["superuser"],
            "LOCKBOX_OWNER_PASSWORD": self.state.passwords["owner"],
            "LOCKBOX_API_PASSWORD": self.state.passwords["api"],
            "LOCKBOX_WORKER_PASSWORD": self.state.passwords["worker"],
            "LOCKBOX_NOTIFICATIONS_PASSWORD": self.state.passwords["notifications"],
            "LOCKBOX_CONNECTORS_PASSWORD": self.state.passwords["connectors"],
        }
        run(self.home, [str(programs_for(self.home).postgres / "psql"), "-X", "-q", "-f", "-"], env=env, stdin=sql)
        self.state.roles = wanted

    def stop(self, process: psutil.Process) -> None:
        self._run("pg_ctl", "stop", "-s", "-m", "fast", "-w", "-t", str(STOP_SECONDS), "-D", str(self._data))
        if not wait_gone(process, STOP_SECONDS):
            raise EmbeddedRefused(f"Postgres (pid {process.pid}) did not stop\n{tail(self.log)}")

    @property
    def _data(self) -> Path:
        return self.home.folder / "postgres"

    @property
    def _pid_file(self) -> Path:
        return self._data / "postmaster.pid"

    def _run(self, program: str, *arguments: str) -> None:
        run(self.home, [str(programs_for(self.home).postgres / program), *arguments])

    def _make_cluster(self) -> None:
        fresh, password = self.home.folder / "postgres.new", self.home.folder / "initdb.password"
        shutil.rmtree(fresh, ignore_errors=True)
        write_private(password, self.state.passwords["superuser"], self.home.account)
        try:
            self._run(
                "initdb",
                f"--pgdata={fresh}",
                "--username=postgres",
                f"--pwfile={password}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
            )
        finally:
            password.unlink(missing_ok=True)
        fresh.rename(self._data)

    def _heal(self) -> None:
        """Clean up after a killed postmaster, unless another one of ours is running."""
        if not self._pid_file.exists():
            return
        if not wait_until(lambda: not self._leftovers(), LEFTOVER_SECONDS):
            for process in self._leftovers():
                with contextlib.suppress(psutil.Error):
                    # A backend that is busy with a query does not end by itself. Postgres kills it in a crash, too.
                    if process.cmdline()[0].startswith("postgres: "):
                        process.kill()
        if not wait_until(lambda: not self._leftovers(), START_SECONDS):
            pids = ", ".join(str(process.pid) for process in self._leftovers())
            raise EmbeddedRefused(f"another Postgres runs in {self._data}: pids {pids}")
        words = self._pid_file.read_text().split()
        # If no process has this id, Postgres deletes the file itself, once it has checked the shared memory.
        if not words or psutil.pid_exists(int(words[0])):
            self._pid_file.unlink()

    def _leftovers(self) -> list[psutil.Process]:
        return list(living_in(self._data, uid=self.home.uid, program="postgres"))
