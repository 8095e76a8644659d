"""The audit log as an admin exports it, and a checkpoint of the same size."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from harness.wait import within

LOOK_SECONDS = 0.3


@dataclass(frozen=True)
class SealedExport:
    """`agrees`: the export is complete, and the checkpoint is of the same size."""

    content: bytes
    note: str
    size: int
    agrees: bool


def export_sealed(admin: httpx.Client, seconds: float, is_whole: Callable[[bytes], bool]) -> SealedExport | None:
    """Export the log of the admin's tenant once it is complete, with a checkpoint of that size.

    The export is itself an event, which is sealed a moment later: export and checkpoint are requested until they
    agree. Return the last ones if they do not agree in time, and None if nothing was sealed.
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
