"""Real gateways, found and run by the files of deploy/gateways."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from devstack.stack import CHECKOUT
from harness.network import HOST
from harness.ports import own_port, wait_until_listening
from harness.sample_files import replaced
from tests.programs import UNPACKED

SAMPLES = CHECKOUT / "deploy" / "gateways"
STOP_SECONDS = 10
LONGEST_SECONDS = 8
CHECK_SECONDS = 6
"""How long a gateway waits for Lockbox in tests, whose machine may be busy; by the samples it is 2 seconds."""


@dataclass(frozen=True)
class GatewayPlaces:
    """The ports of a gateway, of Lockbox and of the service, and the gateway's token."""

    entrance: int
    lockbox: int
    service: int
    token: str


@dataclass(frozen=True)
class GatewayProgram:
    """How to find a kind of gateway, and run it by its sample with only addresses and the token file changed."""

    find: Callable[[], Path | None]
    running: Callable[[Path, Path, GatewayPlaces], AbstractContextManager[None]]
    bounds_answers: bool
    """Whether it cuts an answer that takes longer than the sample says: `LONGEST_SECONDS` in tests."""


def nginx() -> Path | None:
    """Return nginx: the installed one, or Debian's package, unpacked once; None if neither is available."""
    return _of_debian("nginx", "nginx")


def _of_debian(name: str, *packages: str) -> Path | None:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin")
    unpacked = UNPACKED / name / "usr" / "sbin" / name
    fetch, unpack = shutil.which("apt-get"), shutil.which("dpkg")
    if found is None and not unpacked.exists() and fetch and unpack:
        _unpack(packages, UNPACKED / name, fetch, unpack)
    return Path(found) if found else unpacked if unpacked.exists() else None


def _unpack(packages: tuple[str, ...], place: Path, fetch: str, unpack: str) -> None:
    UNPACKED.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=UNPACKED) as folder:
        fetched = subprocess.run([fetch, "download", *packages], cwd=folder, capture_output=True, check=False)
        if fetched.returncode == 0:
            for archive in Path(folder).glob("*.deb"):
                subprocess.run([unpack, "-x", archive, Path(folder) / "root"], check=True)
            with suppress(OSError):  # another process was faster
                (Path(folder) / "root").rename(place)


@contextmanager
def running_nginx(program: Path, folder: Path, places: GatewayPlaces) -> Iterator[None]:
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
        "proxy_read_timeout 2s;": f"proxy_read_timeout {CHECK_SECONDS}s;",
        "/etc/lockbox/gateway-token.conf": str(token),
        "http {\n": f"http {{\n{temporary}",
    }
    written = folder / "nginx.conf"
    written.write_text(replaced((SAMPLES / "nginx.conf").read_text(), changes))
    command: list[str | Path] = [program, "-p", folder, "-c", written, "-e", folder / "error.log"]
    with _process([*command, "-g", f"daemon off; pid {folder}/pid;"], folder, places.entrance):
        yield


def of_wheels(name: str) -> Path | None:
    """Return a program that came with the development lock."""
    found = Path(sys.executable).parent / name
    return found if found.exists() else None


@contextmanager
def running_caddy(program: Path, folder: Path, places: GatewayPlaces) -> Iterator[None]:
    token = folder / "gateway-token"
    token.write_text(f"{places.token}\n")
    token.chmod(0o600)
    changes = {
        "127.0.0.1:8000": f"{HOST}:{places.lockbox}",
        "127.0.0.1:9000": f"{HOST}:{places.service}",
        "http://:8080": f"http://:{places.entrance}",
        "bind 127.0.0.1": f"bind {HOST}",
        "write 5m": f"write {LONGEST_SECONDS}s",
        "response_header_timeout 2s": f"response_header_timeout {CHECK_SECONDS}s",
        "/etc/lockbox/gateway-token}": f"{token}}}",
    }
    written = folder / "Caddyfile"
    written.write_text(replaced((SAMPLES / "Caddyfile").read_text(), changes))
    with _process([program, "run", "--config", written, "--adapter", "caddyfile"], folder, places.entrance):
        yield


@contextmanager
def running_traefik(program: Path, folder: Path, places: GatewayPlaces) -> Iterator[None]:
    sample, inner, dynamic = SAMPLES / "traefik", own_port(), folder / "dynamic"
    dynamic.mkdir()
    changes = {
        "traefik.yaml": {
            "127.0.0.1:8080": f"{HOST}:{places.entrance}",
            "127.0.0.1:8081": f"{HOST}:{inner}",
            "/etc/traefik/dynamic": str(dynamic),
            "readTimeout: 5s": f"readTimeout: {LONGEST_SECONDS}s",
            "writeTimeout: 5s": f"writeTimeout: {LONGEST_SECONDS}s",
            "writeTimeout: 300s": f"writeTimeout: {LONGEST_SECONDS}s",
        },
        "dynamic/lockbox.yaml": {
            "127.0.0.1:8081": f"{HOST}:{inner}",
            "127.0.0.1:8000": f"{HOST}:{places.lockbox}",
            "127.0.0.1:9000": f"{HOST}:{places.service}",
            "responseHeaderTimeout: 2s": f"responseHeaderTimeout: {CHECK_SECONDS}s",
        },
        "dynamic/gateway-token.yaml": {"lbx_...": places.token},
    }
    for name, change in changes.items():
        (folder / name).write_text(replaced((sample / name).read_text(), change))
    with _process([program, f"--configFile={folder}/traefik.yaml"], folder, places.entrance):
        wait_until_listening(inner)
        yield


def haproxy() -> Path | None:
    """Return HAProxy: the installed one, or Debian's packages, unpacked once; None if neither is available."""
    return _of_debian("haproxy", "haproxy", "liblua5.4-0", "libopentracing-c-wrapper0t64", "libopentracing1")


@contextmanager
def running_haproxy(program: Path, folder: Path, places: GatewayPlaces) -> Iterator[None]:
    token, script = folder / "gateway-token", folder / "haproxy.lua"
    token.write_text(f"{places.token}\n")
    token.chmod(0o600)
    changes = {
        "127.0.0.1:8000": f"{HOST}:{places.lockbox}",
        "/etc/lockbox/gateway-token": str(token),
        "local SECONDS = 2": f"local SECONDS = {CHECK_SECONDS}",
    }
    script.write_text(replaced((SAMPLES / "haproxy.lua").read_text(), changes))
    changes = {
        "127.0.0.1:8080": f"{HOST}:{places.entrance}",
        "127.0.0.1:9000": f"{HOST}:{places.service}",
        "/etc/haproxy/haproxy.lua": str(script),
    }
    written = folder / "haproxy.cfg"
    written.write_text(replaced((SAMPLES / "haproxy.cfg").read_text(), changes))
    libraries = program.parents[1] / "lib" / "x86_64-linux-gnu"
    with _process([program, "-f", written], folder, places.entrance, {"LD_LIBRARY_PATH": str(libraries)}):
        yield


@contextmanager
def _process(
    command: list[str | Path], folder: Path, port: int, variables: Mapping[str, str] | None = None
) -> Iterator[None]:
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(variables or {})})
        try:
            wait_until_listening(port)
            yield
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def is_demanded() -> bool:
    """Return whether a missing program is a failure, as it is in CI."""
    return bool(os.environ.get("CI"))


KINDS = {
    "nginx": GatewayProgram(nginx, running_nginx, bounds_answers=False),
    "caddy": GatewayProgram(lambda: of_wheels("caddy"), running_caddy, bounds_answers=True),
    "traefik": GatewayProgram(lambda: of_wheels("traefik"), running_traefik, bounds_answers=True),
    "haproxy": GatewayProgram(haproxy, running_haproxy, bounds_answers=False),
}
