"""The guard's examples as processes: who is admitted, what is refused, and that they refuse without Lockbox."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest

from harness.ports import own_port, wait_until_listening
from harness.wait import wait_for
from tests.unit.guard_lockbox import ANNA, TOKEN, SmallLockbox, window

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
SECRET = "the customer's"
PATIENCE = 60.0
BEARER = {"authorization": "Bearer erin"}


@pytest.fixture
def lockbox() -> Iterator[SmallLockbox]:
    small = SmallLockbox()
    small.knows("erin", seconds=600)
    yield small
    small.close()


@contextmanager
def running(tmp_path: Path, name: str, url: str, *about: str) -> Iterator[str]:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    port = own_port()
    words = [str(EXAMPLES / name), "--lockbox", url, "--token-file", str(token), "--port", str(port), *about]
    with subprocess.Popen([sys.executable, *words]) as process:
        try:
            wait_until_listening(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def read(url: str, address: str = "anna@contoso.example", **headers: str) -> httpx.Response:
    return httpx.get(f"{url}/mailboxes/{address}", headers=headers, timeout=30, trust_env=False)


def test_the_guarded_service_serves_only_with_a_window(lockbox: SmallLockbox, tmp_path: Path) -> None:
    with running(tmp_path, "guarded.py", lockbox.url, "--tenant", "contoso") as url:
        wait_for("it has heard Lockbox", lambda: read(url, **BEARER).json()["code"] == "no_window", PATIENCE)
        assert read(url, **BEARER).status_code == 403
        request = lockbox.open(window())
        wait_for("it serves", lambda: read(url, **BEARER).status_code == 200, PATIENCE)

        assert read(url).status_code == 401
        assert read(url, "ceo@contoso.example", **BEARER).status_code == 403
        assert read(url, "..%2fdocs", **BEARER).status_code == 403
        assert httpx.get(f"{url}/", headers=BEARER, timeout=30, trust_env=False).json()["code"] == "unmapped"
        lockbox.shut(request)
        wait_for("it refuses", lambda: read(url, **BEARER).status_code == 403, PATIENCE)


@pytest.mark.far
def test_the_guarded_service_refuses_without_lockbox(tmp_path: Path) -> None:
    with running(tmp_path, "guarded.py", f"http://127.0.0.1:{own_port()}", "--tenant", "contoso") as url:
        answer = read(url, **BEARER)

    assert (answer.status_code, answer.json()["code"]) == (403, "behind")
    assert SECRET not in answer.text


@pytest.mark.far
def test_the_sample_admin_tool_reads_the_tenant_from_the_tools_database(
    lockbox: SmallLockbox, tmp_path: Path
) -> None:
    database, reports = tmp_path / "tool.db", tmp_path / "reports"
    reports.write_text("lbx_test_reports")
    with closing(sqlite3.connect(database)) as records, records:
        records.execute("CREATE TABLE records (id INTEGER PRIMARY KEY, tenant TEXT, resource TEXT, note TEXT)")
        records.executemany(
            "INSERT INTO records VALUES (?, ?, ?, ?)",
            [(7, "contoso", ANNA, f"{SECRET} note"), (8, "fabrikam", ANNA, f"{SECRET} other note")],
        )

    def act(number: int, action: str = "read", **headers: str) -> httpx.Response:
        said = {"action": action, "note": "changed"}
        return httpx.post(f"{url}/records/{number}", json=said, headers=headers, timeout=30, trust_env=False)

    about = ["--database", str(database), "--reports-token-file", str(reports)]
    with running(tmp_path, "admin_tool.py", lockbox.url, *about) as url:
        wait_for("it has heard Lockbox", lambda: act(7, **BEARER).json()["code"] == "no_window", PATIENCE)
        lockbox.open(window())
        wait_for("it lets in", lambda: act(7, **BEARER).status_code == 200, PATIENCE)

        refused = [act(8, **BEARER), act(9, **BEARER), act(7, "change", **BEARER), act(7), act(7, authorization="x")]

        assert act(7, **BEARER).json() == {"resource": ANNA, "note": f"{SECRET} note"}
        assert [one.status_code for one in refused] == [403, 403, 403, 401, 401]
        assert all(SECRET not in one.text for one in refused)
        wait_for("it has reported", lambda: bool(lockbox.reported), PATIENCE)
    assert {entry["outcome"] for _, entries, _ in lockbox.reported for entry in entries} == {"done"}
