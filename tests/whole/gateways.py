"""Real gateways by the files of deploy/gateways, between a client, the gate and a service that records its calls."""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cli.stack import CHECKOUT
from harness.network import HOST
from harness.ports import own_port, wait_until_listening

SAMPLES = CHECKOUT / "deploy" / "gateways"
CACHE = CHECKOUT / "var" / "programs"
PATIENCE = 20.0
STOP_SECONDS = 10
CHUNK = 65_536
HELLO = b"the customer's data"


@dataclass(frozen=True)
class ServedCall:
    """What reached the service: the target as it was asked, and headers by small names."""

    method: str
    target: str
    headers: dict[str, str]


class RecordingService:
    """A service that answers everything, and remembers what reached it."""

    def __init__(self) -> None:
        self.seen: list[ServedCall] = []
        seen = self.seen

        class RecordingHandler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                method, target, _ = self.requestline.split(" ")
                headers = dict[str, str]()
                for name, value in self.headers.items():
                    headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
                seen.append(ServedCall(method, target, headers))
                self.rfile.read(int(self.headers.get("content-length", 0)))
                self.send_response(200)
                self.send_header("Content-Length", str(len(HELLO)))
                self.end_headers()
                if method != "HEAD":
                    self.wfile.write(HELLO)

            do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = do_OPTIONS = answer  # noqa: N815 - the base's names

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer((HOST, 0), RecordingHandler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """End it."""
        self.server.shutdown()
        self.server.server_close()


@dataclass
class LockboxLine:
    """The line from a gateway to Lockbox: it notes questions, can lead elsewhere, fall silent, or be cut."""

    target: int
    port: int = field(default_factory=own_port)
    asked: list[dict[str, str]] = field(default_factory=list)
    is_silent: bool = False
    _listener: socket.socket | None = None
    _open: list[socket.socket] = field(default_factory=list)

    def connect(self) -> None:
        """Take connections."""
        self._listener = socket.create_server((HOST, self.port), backlog=100)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        """End all connections, and take no more."""
        if self._listener is not None:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self.drop()

    def drop(self) -> None:
        """End all connections."""
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self._open.append(near)
            if not self.is_silent:
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection((HOST, self.target))
        except OSError:
            near.close()
            return
        self._open.append(far)
        threading.Thread(target=_copy, args=(far, near, None), daemon=True).start()
        _copy(near, far, self._note)

    def _note(self, head: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")[1:]
        self.asked.append({name.lower(): value for name, _, value in (line.partition(": ") for line in lines)})


def _copy(source: socket.socket, sink: socket.socket, note: Callable[[bytes], None] | None) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            if note is not None:
                note(data)
            sink.sendall(data)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@dataclass(frozen=True)
class EntranceAnswer:
    """What a client of the gateway sees."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class GatewayPlaces:
    """Where a gateway finds and is found: ports, the service's name, and the token of the gateway."""

    entrance: int
    lockbox: int
    service: int
    token: str


def ask(port: int, line: str, headers: list[tuple[str, str]], body: bytes = b"") -> EntranceAnswer:
    """Send a request exactly as it is, and return the answer."""
    lines = [line, *(f"{name}: {value}" for name, value in headers), "Connection: close"]
    with socket.create_connection((HOST, port), timeout=PATIENCE) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)
        with HTTPResponse(connection, method=line.partition(" ")[0]) as response:
            response.begin()
            found = {name.lower(): value for name, value in response.getheaders()}
            return EntranceAnswer(response.status, found, response.read())


def replaced(sample: str, changes: dict[str, str]) -> str:
    """Return a sample with texts changed, each of which must be there."""
    for old, new in changes.items():
        assert old in sample, f"the sample has no {old!r}"
        sample = sample.replace(old, new)
    return sample


def nginx() -> Path | None:
    """Return nginx: what is installed, or Debian's package, unpacked once; None where neither can be had."""
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    unpacked = CACHE / "nginx" / "usr" / "sbin" / "nginx"
    fetch, unpack = shutil.which("apt-get"), shutil.which("dpkg")
    if found is None and not unpacked.exists() and fetch and unpack:
        _unpack("nginx", CACHE / "nginx", fetch, unpack)
    return Path(found) if found else unpacked if unpacked.exists() else None


def _unpack(package: str, place: Path, fetch: str, unpack: str) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        fetched = subprocess.run([fetch, "download", package], cwd=folder, capture_output=True, check=False)
        if fetched.returncode == 0:
            (archive,) = Path(folder).glob("*.deb")
            subprocess.run([unpack, "-x", archive, Path(folder) / "root"], check=True)
            with suppress(OSError):  # another process was faster
                (Path(folder) / "root").rename(place)


@contextmanager
def running_nginx(program: Path, folder: Path, places: GatewayPlaces) -> Iterator[None]:
    """Run nginx by the sample, with its addresses and the token's file changed alone."""
    token = folder / "token.conf"
    token.write_text(f'proxy_set_header Lockbox-Gateway "{places.token}";\n')
    token.chmod(0o600)
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    changes = {
        "127.0.0.1:8000;": f"{HOST}:{places.lockbox};",
        "127.0.0.1:9000;": f"{HOST}:{places.service};",
        "127.0.0.1:8080;": f"{HOST}:{places.entrance};",
        "/etc/lockbox/gateway-token.conf": str(token),
        "http {\n": f"http {{\n{temporary}",
    }
    written = folder / "nginx.conf"
    written.write_text(replaced((SAMPLES / "nginx.conf").read_text(), changes))
    command: list[str | Path] = [program, "-p", folder, "-c", written, "-e", folder / "error.log"]
    with _process([*command, "-g", f"daemon off; pid {folder}/pid;"], folder, places.entrance):
        yield


@contextmanager
def _process(command: list[str | Path], folder: Path, port: int) -> Iterator[None]:
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_until_listening(port)
            yield
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def is_demanded() -> bool:
    """Whether a program that is missing is a failure: in CI it is."""
    return bool(os.environ.get("CI"))
