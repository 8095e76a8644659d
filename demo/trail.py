"""The demo's ending: the trail is exported and verified offline, once as it is and once with a byte of it flipped."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx

from cli import stack
from cli.stack import StackPlan
from config.children import environment
from demo.evidence import DemoTrail, DemoVerification
from lockbox.audit.log import signing_keys
from lockbox.audit.log.signing_keys import ApprovalKeys

FOLDER = stack.CHECKOUT / "var" / "demo-trail"
SEALED_SECONDS = 15
LOOK_SECONDS = 0.3
VERIFY_SECONDS = 60
MOMENT = b'\\"at\\":\\"'
TO_A_DIGIT = len("2026-01-01T00:00:0")
MOST = 200
MEMORY = "verified"


def examine(admin: httpx.Client, plan: StackPlan) -> DemoTrail:
    """Export the trail of the admin's tenant once it is sealed, and let a process verify it that calls nobody."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    export, flipped, note, key = (FOLDER / name for name in ("trail.ndjson", "flipped.ndjson", "checkpoint", "key"))
    recorded = _exported(admin, export, note)
    if recorded is None:
        return DemoTrail()
    approvals = ApprovalKeys(signing_keys.read([plan.keys / stack.APPROVAL_KEY])).public
    key.write_text(f"{plan.audit_key.text}\n{approvals.text}\n", encoding="utf-8")
    shutil.rmtree(FOLDER / MEMORY, ignore_errors=True)
    lines = export.read_bytes().splitlines(keepends=True)
    line = _flip(lines)
    flipped.write_bytes(b"".join(lines))
    return DemoTrail(recorded, _verified(export, note, key), line, _verified(flipped, note, key))


def _exported(admin: httpx.Client, export: Path, note: Path) -> int | None:
    """Write the export and a checkpoint of its size once all is sealed; return how many events it has, None if never.

    That the trail is read is an event too, and sealed within a second: the two are asked for until they meet.
    """
    until = time.monotonic() + SEALED_SECONDS
    while time.monotonic() < until:
        if _is_sealed(admin):
            checkpoint = _got(admin, "/v1/audit/checkpoint").json()
            exported = _got(admin, "/v1/audit/export").content
            if json.loads(exported.partition(b"\n")[0])["size"] == checkpoint["size"]:
                note.write_text(checkpoint["note"], encoding="utf-8")
                export.write_bytes(exported)
                return int(checkpoint["size"])
        time.sleep(LOOK_SECONDS)
    return None


def _is_sealed(admin: httpx.Client) -> bool:
    """Whether all is sealed that was not written by reading the trail."""
    cursor: str | None = None
    while True:
        page = _got(admin, "/v1/audit", limit=MOST, **({"cursor": cursor} if cursor else {})).json()
        if not all(event["sealed"] or event["action"].startswith("audit_log_") for event in page["items"]):
            return False
        cursor = page["next_cursor"]
        if cursor is None:
            return True


def _got(admin: httpx.Client, path: str, **params: str | int) -> httpx.Response:
    return admin.get(path, params=params).raise_for_status()


def _flip(lines: list[bytes]) -> int:
    """Flip a bit of one event's time, and return in which line, counted from 1."""
    events = [number for number, line in enumerate(lines) if MOMENT in line]
    number = events[len(events) // 2]
    line = bytearray(lines[number])
    line[line.index(MOMENT) + len(MOMENT) + TO_A_DIGIT] ^= 1
    lines[number] = bytes(line)
    return number + 1


def _verified(export: Path, note: Path, key: Path) -> DemoVerification:
    """Run the command that anybody runs who trusts neither us nor the network."""
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
    return DemoVerification(ended.returncode, int(good[1]) if good else 0, found[1] if found else "", said)
