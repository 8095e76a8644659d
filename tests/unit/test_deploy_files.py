"""Every file of deploy/ is validated by a test: a new one needs one, and is named here with it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from devstack.stack import CHECKOUT

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
"""Files and folders, and the test of each with a word that stands in it."""
OWN = ("kubernetes/mine/",)
"""What somebody makes here and git leaves out."""


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
