"""The peers' API: `python -m bench.peers.serve PEER PORT` takes submissions and approvals as Lockbox does.

It uses the same framework and server as Lockbox and the floor, and checks nothing.
"""

import importlib
import sys
import time
import uuid
from types import ModuleType

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from bench.peers import work

APPROVAL_SECONDS = 12 * 3600


class Submission(BaseModel):
    """The body of a submission."""

    tenant: str
    service: str
    resources: list[str]
    actions: list[str]
    reason_code: str
    justification: str
    case_ref: str
    access_window: int


class Receipt(BaseModel):
    """The body of an answer."""

    id: uuid.UUID


def make_app(peer: ModuleType) -> FastAPI:
    """Return the app."""
    app = FastAPI(docs_url=None, redoc_url=None)

    @app.post("/v1/requests", status_code=201)
    def submit(body: Submission) -> Receipt:
        receipt = Receipt(id=uuid.uuid4())
        one = str(receipt.id)
        work.submit(one, body.model_dump())
        peer.arm(one, time.time() + APPROVAL_SECONDS, 0)
        _notify(peer, one, "pending", work.SUBMITTED_MAILS)
        return receipt

    @app.post("/v1/requests/{id_}/approve")
    def approve(id_: uuid.UUID) -> Receipt:
        until = work.approve(str(id_))
        peer.arm(str(id_), until, work.ENDED_MAILS)
        _notify(peer, str(id_), "active", work.APPROVED_MAILS)
        return Receipt(id=id_)

    return app


def _notify(peer: ModuleType, one: str, template: str, mails: int) -> None:
    for _ in range(mails):
        peer.notify(one, template)


def main() -> None:
    """Serve until the process is ended."""
    name, port = sys.argv[1:]
    app = make_app(importlib.import_module(f"bench.peers.{name}"))
    uvicorn.run(app, port=int(port), log_config=None, access_log=False, server_header=False, proxy_headers=False)


if __name__ == "__main__":
    main()
