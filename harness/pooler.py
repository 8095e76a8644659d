"""Run PgBouncer between processes and a Postgres, with the file that docs/scaling.md shows."""

import getpass
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.engine import make_url

from devstack.stack import CHECKOUT
from harness.network import HOST
from harness.ports import own_port, wait_until_listening
from harness.stage import own_folder

EXAMPLE = CHECKOUT / "deploy" / "examples" / "pgbouncer.ini"
PROGRAM = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
STOP_SECONDS = 10


@dataclass(frozen=True)
class Pooler:
    port: int
    process: "subprocess.Popen[bytes]"
    file: Path

    def through(self, url: str) -> str:
        return make_url(url).set(host=HOST, port=self.port).render_as_string(hide_password=False)

    def reload(self, **changes: str) -> None:
        """Change settings in PgBouncer's file, and make PgBouncer read it again."""
        self.file.write_text(_changed(self.file.read_text(), changes))
        self.process.send_signal(signal.SIGHUP)


@contextmanager
def pooler(*urls: str, **changes: str) -> Iterator[Pooler]:
    """Run the example in front of the Postgres of these URLs, with some of its settings changed.

    If two connections are free, each transaction gets another one than the transaction before it.

    Raises:
        RuntimeError: PgBouncer is not installed.
    """
    if PROGRAM is None:
        raise RuntimeError("install pgbouncer")
    with own_folder("pooler") as folder:
        port = own_port()
        (folder / "users").write_text("".join(_user(url) for url in urls))
        own = {
            "listen_port": str(port),
            "auth_file": str(folder / "users"),
            "logfile": str(folder / "log"),
            "pidfile": str(folder / "pid"),
            "server_round_robin": "1",
        }
        postgres = make_url(urls[0])
        text = _changed(EXAMPLE.read_text(), own | changes)
        text = re.sub("(?m)^lockbox = .*$", f"* = host={HOST} port={postgres.port}", text)
        (folder / "ini").write_text(text)
        account = "nobody" if getpass.getuser() == "root" else None
        if account:
            shutil.chown(folder, account)
        process = subprocess.Popen([PROGRAM, "--quiet", str(folder / "ini")], user=account)  # noqa: S603 - our own
        try:
            wait_until_listening(port)
            yield Pooler(port, process, folder / "ini")
        finally:
            # After SIGTERM, PgBouncer would wait for its clients to leave.
            process.send_signal(signal.SIGQUIT)
            process.wait(STOP_SECONDS)


def _user(url: str) -> str:
    login = make_url(url)
    return f'"{login.username}" "{login.password}"\n'


def _changed(text: str, settings: dict[str, str]) -> str:
    """A setting that is not in the file is added at its end."""
    for name, value in settings.items():
        text, count = re.subn(rf"(?m)^{name} =.*$", f"{name} = {value}", text)
        text = text if count else f"{text}{name} = {value}\n"
    return text


def example_settings(path: Path = EXAMPLE) -> dict[str, str]:
    return dict(re.findall(r"(?m)^(\w+) = ?(.*)$", path.read_text()))
