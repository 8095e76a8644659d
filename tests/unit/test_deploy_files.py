"""Each file of deploy/ is validated by a test, which is named here; a new file needs one too."""

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from devstack.stack import CHECKOUT

WHEEL = "taken_offline-1.0-py3-none-any.whl"
DEPLOY, TESTS = CHECKOUT / "deploy", CHECKOUT / "tests"
VALIDATED = {
    "catalogue.yaml": ("unit/test_catalogue.py", "deploy"),
    "clean": ("unit/test_environment.py", "deploy/clean"),
    "clean.py": ("unit/test_environment.py", "clean.py"),
    "compose/lock.py": ("whole/test_image.py", "deploy/compose/lock.py"),
    "compose/proxy.conf": ("whole/test_compose.py", "proxy.conf"),
    "compose/roles.sh": ("whole/containers.py", "roles.sh"),
    "compose/secrets": ("whole/test_compose_secrets.py", '"secrets"'),
    "compose/valkey.sh": ("whole/containers.py", "valkey.sh"),
    "examples/admin_tool.py": ("whole/test_guarded.py", "admin_tool"),
    "examples/checked.py": ("whole/test_checked.py", "checked"),
    "examples/guarded.py": ("whole/test_guarded.py", "guarded"),
    "examples/pgbouncer.ini": ("whole/test_pooler.py", "pooler"),
    "find-python": ("unit/test_environment.py", "find-python"),
    "gateways/Caddyfile": ("whole/gateways.py", "Caddyfile"),
    "gateways/envoy.yaml": ("whole/test_envoy.py", "envoy.yaml"),
    "gateways/haproxy.cfg": ("whole/gateways.py", "haproxy.cfg"),
    "gateways/haproxy.lua": ("whole/gateways.py", "haproxy.lua"),
    "gateways/nginx.conf": ("whole/gateways.py", "nginx.conf"),
    "gateways/traefik/": ("whole/gateways.py", "traefik.yaml"),
    "grafana/": ("whole/test_prometheus.py", "lockbox.json"),
    "kubernetes/": ("whole/test_kubernetes.py", "kubernetes"),
    "pin_images.py": ("unit/test_pin_images.py", "pin_images"),
    "pip_progress.py": ("unit/test_environment.py", "deploy/pip_progress.py"),
    "prometheus/": ("whole/test_prometheus.py", "lockbox.rules.yaml"),
    "receivers/": ("whole/test_receivers.py", "receiver.go"),
    "run": ("whole/test_systemd.py", '"run"'),
    "systemd/": ("whole/test_systemd.py", "systemd"),
    "venv": ("unit/test_deploy_files.py", "deploy/venv"),
}
"""Files and folders, each with its test and a word that the test contains."""
OWN = ("kubernetes/mine/",)
"""Local files, which git ignores."""


def files() -> list[str]:
    found = (file.relative_to(DEPLOY).as_posix() for file in DEPLOY.rglob("*") if file.is_file())
    return sorted(name for name in found if "__pycache__" not in name and not name.startswith(OWN))


def covers(place: str, name: str) -> bool:
    return name.startswith(place) if place.endswith("/") else name == place


def test_every_file_in_the_deploy_folder_has_a_test() -> None:
    assert [name for name in files() if not any(covers(place, name) for place in VALIDATED)] == []


@pytest.mark.parametrize("place", VALIDATED)
def test_the_test_listed_for_a_deployed_file_exists_and_reads_that_file(place: str) -> None:
    test, word = VALIDATED[place]

    assert any(covers(place, name) for name in files())
    assert word in (TESTS / test).read_text()


def test_the_environment_script_reports_a_missing_python_and_makes_no_environment(tmp_path: Path) -> None:
    made = tmp_path / "venv"
    (tmp_path / "dirname").symlink_to(str(shutil.which("dirname")))

    ended = subprocess.run(
        ["/bin/sh", "deploy/venv", made, "requirements.lock"],
        cwd=CHECKOUT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert ended.stderr.startswith("lockbox: Python 3.11 or newer is missing")
    assert not made.exists()


def offline_lock(folder: Path) -> str:
    """Write a wheel into a new folder `index`; return a lock of it."""
    (folder / "index").mkdir()
    wheel = folder / "index" / WHEEL
    with zipfile.ZipFile(wheel, "w") as files:
        about = "taken_offline-1.0.dist-info"
        files.writestr("taken_offline.py", "")
        files.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: taken-offline\nVersion: 1.0\n")
        files.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        files.writestr(f"{about}/RECORD", "")
    return f"taken-offline==1.0 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


@pytest.mark.far
def test_the_commands_for_a_machine_without_the_internet_install_from_the_wheels(tmp_path: Path) -> None:
    guide = (CHECKOUT / "docs" / "deploy.md").read_text().partition("**Without the internet.**")[2]
    download, install = re.findall(r"^    (.+)$", guide.partition("\n## ")[0], flags=re.MULTILINE)
    (tmp_path / "offline.lock").write_text(offline_lock(tmp_path))
    make = [shutil.which("make") or "make", "--dry-run", "production"]
    path = {"PATH": f"{sys.base_prefix}/bin:/usr/local/bin:/usr/bin:/bin"}
    made = subprocess.run(make, cwd=CHECKOUT, env=path, capture_output=True, text=True, check=True).stdout.strip()
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "index"}

    for line, settings in ((download, index), (install.replace("make production", made), {})):
        # With requirements-production.lock, the script would install Lockbox too.
        own = line.replace("requirements-production.lock", "offline.lock").replace("deploy/venv", f"{DEPLOY}/venv")
        subprocess.run(["/bin/sh", "-c", own], cwd=tmp_path, env=path | settings, capture_output=True, check=True)

    assert [wheel.name for wheel in tmp_path.glob("wheels/*")] == [WHEEL]
    assert list(tmp_path.glob(".venv/lib/*/site-packages/taken_offline.py"))
