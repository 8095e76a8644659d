"""Missing programs: named before a test run with how to install them, and counted in its last line."""

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.programs import ABSENT, NEEDED, NOT_ROOT, absent, find, left_out, missing, need, need_root
from tests.whole.gateways import KINDS
from tests.whole.test_receivers import LANGUAGES

CHECKOUT = Path(__file__).parents[2]
EVERYTHING = (
    "apt-get install chromium-headless-shell redis-server pgbouncer promtool kustomize systemd nodejs golang-go "
    "nginx haproxy"
)


def test_if_no_program_is_missing_nothing_is_printed() -> None:
    assert missing(lambda name: f"/usr/bin/{name}") == ""


def test_either_supported_browser_is_accepted_for_browser_tests() -> None:
    assert missing(lambda name: None if name == "chromium-headless-shell" else f"/usr/bin/{name}") == ""


def test_a_missing_program_is_named_with_its_package() -> None:
    assert missing(lambda _: None) == (
        "Not tested here: the pages in a browser, Redis itself beside Valkey, PgBouncer before Postgres, "
        "the rules for Prometheus, the files for Kubernetes, the units of systemd, the webhook receiver in Node, "
        "the webhook receiver in Go, nginx as gateway and proxy, HAProxy as gateway, Caddy as gateway, "
        f"Traefik as gateway. Install it: {EVERYTHING}"
    )
    assert missing(lambda name: None if name == "redis-server" else f"/usr/bin/{name}") == (
        "Not tested here: Redis itself beside Valkey. Install it: apt-get install redis-server"
    )
    assert missing(lambda name: None if name == "caddy" else f"/usr/bin/{name}").endswith(". Install it: make test")
    assert EVERYTHING in (CHECKOUT / "README.md").read_text()


def test_every_program_that_tests_need_is_named_before_a_run() -> None:
    tests = {path: path.read_text() for path in (CHECKOUT / "tests").rglob("*.py") if path != Path(__file__)}
    named = {program.names[0] for program in NEEDED}

    asked = set(re.findall(r"\b(?:need|absent)\(\"([^\"]+)\"", "\n".join(tests.values())))

    assert asked | set(KINDS) | (set(LANGUAGES) - {"python3"}) == named
    assert [path.name for path, text in tests.items() if f'{ABSENT}"' in text] == ["programs.py"]
    with pytest.raises(ValueError, match="no-such-program"):
        absent("no-such-program")


def test_a_program_that_tests_unpack_by_themselves_is_not_missing(tmp_path: Path) -> None:
    for name, code in (("dpkg", 0), ("apt-get", 0)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / name).chmod(0o755)

    assert find("haproxy", str(tmp_path))
    assert find("kustomize", str(tmp_path)) is None
    (tmp_path / "apt-get").write_text("#!/bin/sh\nexit 100\n")
    assert find("haproxy", str(tmp_path)) == find("haproxy", "/nowhere")


def test_a_missing_program_fails_a_test_in_ci_and_skips_it_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception):
        need("promtool")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        need("promtool")


def test_without_root_a_test_that_needs_root_fails_in_ci_and_is_skipped_and_counted_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception):
        need_root()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception) as skipped:
        need_root()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    need_root()

    assert left_out([str(skipped.value)]) == "1 test was left out, for want of root (1)."


def test_skipped_tests_are_counted_by_missing_program() -> None:
    reasons = [f"Skipped: {absent('promtool')}", absent("pgbouncer"), absent("pgbouncer"), "Skipped: only on Linux"]
    for_root = [f"Skipped: {NOT_ROOT}"] * 4

    assert left_out(reasons) == "3 tests were left out, for want of pgbouncer (2), promtool (1)."
    assert left_out(for_root + reasons[:1]) == "5 tests were left out, for want of root (4), promtool (1)."
    assert left_out(reasons[:1]) == "1 test was left out, for want of promtool (1)."
    assert left_out(reasons[3:]) == ""


def test_a_test_run_announces_missing_programs_and_counts_skipped_tests(
    tmp_path: Path,
) -> None:
    (tmp_path / "test_tried.py").write_text(
        "import pytest\nfrom tests.programs import need\n\n"
        "@pytest.mark.parametrize('n', range(3))\n"
        "def test_tried(n):\n    need('promtool') if n else None\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "tests.programs", "-c", "/dev/null"]
    ran = subprocess.run(
        [*command, "--rootdir", tmp_path, tmp_path],
        cwd=CHECKOUT,
        env={"PATH": "/nowhere", "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = ran.stdout.splitlines()

    assert ran.returncode == 0, ran.stdout + ran.stderr
    lacking = missing(partial(find, path="/nowhere"))
    before = said[: next(place for place, line in enumerate(said) if line.startswith("collected"))]
    assert lacking in before
    assert said[-1] == f"2 tests were left out, for want of promtool (2). {lacking}"
