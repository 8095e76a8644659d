"""Export the demo's audit log and verify it offline, once as it is and once with one byte flipped."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx

from config.children import environment
from demo.evidence import DemoAuditLog, DemoVerification
from devstack import stack
from devstack.stack import StackPlan
from harness.export import export_sealed

FOLDER = stack.CHECKOUT / "var" / "demo-audit-log"
SEALED_SECONDS = 15
VERIFY_SECONDS = 60
MOMENT = b'\\"at\\":\\"'
TO_A_DIGIT = len("2026-01-01T00:00:0")
MOST = 200
MEMORY = "verified"


def examine(admin: httpx.Client, plan: StackPlan) -> DemoAuditLog:
    """Export the audit log of the admin's tenant once it is sealed, and have a process verify it offline."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    export, flipped, note, key = (
        FOLDER / name for name in ("audit-log.ndjson", "flipped.ndjson", "checkpoint", "key")
    )
    events = [event.encode() for event in _listed(admin)]
    found = export_sealed(admin, SEALED_SECONDS, lambda content: all(event in content for event in events))
    if found is None or not found.agrees:
        return DemoAuditLog()
    export.write_bytes(found.content)
    note.write_text(found.note, encoding="utf-8")
    key.write_text(f"{plan.audit_key.text}\n{plan.approval_key.text}\n", encoding="utf-8")
    shutil.rmtree(FOLDER / MEMORY, ignore_errors=True)
    lines = found.content.splitlines(keepends=True)
    line = _flip(lines)
    flipped.write_bytes(b"".join(lines))
    return DemoAuditLog(found.size, _verified(export, note, key), line, _verified(flipped, note, key))


def _listed(admin: httpx.Client) -> Iterator[str]:
    """Yield the ids of all events that were not written by reading the log."""
    cursor: str | None = ""
    while cursor is not None:
        about = {"limit": MOST} | ({"cursor": cursor} if cursor else {})
        page = admin.get("/v1/audit", params=about).raise_for_status().json()
        yield from (event["id"] for event in page["items"] if not event["action"].startswith("audit_log_"))
        cursor = page["next_cursor"]


def _flip(lines: list[bytes]) -> int:
    """Flip a bit of one event's time, and return the number of its line, counted from 1."""
    events = [number for number, line in enumerate(lines) if MOMENT in line]
    number = events[len(events) // 2]
    line = bytearray(lines[number])
    line[line.index(MOMENT) + len(MOMENT) + TO_A_DIGIT] ^= 1
    lines[number] = bytes(line)
    return number + 1


def _verified(export: Path, note: Path, key: Path) -> DemoVerification:
    """Run the command that anyone can run without trusting us or the network."""
    trusted = ("--checkpoint", str(note), "--key", str(key), "--memory", str(export.parent / MEMORY))
    words = ("audit", "verify", str(export), *trusted)
    ended = subprocess.run(  # noqa: S603 - our own command, with files of our own
        [sys.executable, "-m", "cli", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=stack.CHECKOUT,
        env=environment({}),
        timeout=VERIFY_SECONDS,
    )
    said = ended.stdout + ended.stderr
    good = re.match(r"Intact, .*?\. (\d+) events", said)
    found = re.search(r"^  (edited: line \d+)", said, re.MULTILINE)
    glass = re.search(r"opened by break-glass, without your approval: (\d+) window", said)
    return DemoVerification(
        ended.returncode,
        events=int(good[1]) if good else 0,
        found=found[1] if found else "",
        said=said,
        by_break_glass=int(glass[1]) if glass else 0,
    )
