"""The audit log as an admin takes it away: an export, and a checkpoint of the same size."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from harness.wait import within

LOOK_SECONDS = 0.3


@dataclass(frozen=True)
class SealedExport:
    """An export and the note of a checkpoint; `agrees` is whether they are of the same size and all is there."""

    content: bytes
    note: str
    size: int
    agrees: bool


def export_sealed(admin: httpx.Client, seconds: float, is_whole: Callable[[bytes], bool]) -> SealedExport | None:
    """Export the log of the admin's tenant once all that has to be in it is, with a checkpoint of that size.

    That the log is read is an event too, and sealed a moment later: both are asked for until they meet. Return the
    last ones where they did not in time, and None where nothing was sealed.
    """
    found: SealedExport | None = None

    def agrees() -> bool:
        nonlocal found
        answer = admin.get("/v1/audit/checkpoint")
        if answer.status_code == httpx.codes.NOT_FOUND:
            return False
        checkpoint = answer.raise_for_status().json()
        content = admin.get("/v1/audit/export").raise_for_status().content
        size = int(checkpoint["size"])
        meets = json.loads(content.partition(b"\n")[0])["size"] == size and is_whole(content)
        found = SealedExport(content, checkpoint["note"], size, meets)
        return meets

    within(seconds, agrees, LOOK_SECONDS)
    return found
