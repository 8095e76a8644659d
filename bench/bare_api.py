"""The floor of calls over HTTP: `python -m bench.bare_api PORT SMTP` serves what its standard input says as JSON.

Each call is one statement and a commit, and nothing is judged. Under `/v1` a submission is one row, under `/rows` the
very rows that Lockbox writes, under `/mail` one row and mails, handed to the relay at the port SMTP within the call.
The access check does nothing at all.
"""

import json
import smtplib
import sys
import threading
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import Engine, MetaData, Table, bindparam, func

from api.app import OVERFLOW
from api.incoming_request import MOST_COMMON
from lockbox.database import make_engine
from lockbox.sql import new_id

TABLE = "bare_requests"
LATER = timedelta(hours=12)
MAIL = """From: Lockbox <lockbox@vendor.example>\r
To: Ann Archer <ann@customer.example>\r
Subject: A request for access\r
\r
Somebody at your vendor requests access to a mailbox of yours.\r
The request is {id}.\r
"""


class BareRequest(BaseModel):
    """What comes in; nothing of it is judged."""

    tenant: str
    service: str
    resources: list[str]
    actions: list[str]
    reason_code: str
    justification: str
    case_ref: str
    access_window: int


class BareReceipt(BaseModel):
    """What goes out."""

    id: UUID


class BareAnswer(BaseModel):
    """What a route answers that does nothing."""

    open: bool = True


class Relay:
    """Hands over mails, by one connection a thread that is kept."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._kept = threading.local()

    def tell(self, id_: UUID, count: int) -> None:
        """Send that many."""
        if not hasattr(self._kept, "relay"):
            self._kept.relay = smtplib.SMTP("127.0.0.1", self._port, timeout=10)
        for _ in range(count):
            self._kept.relay.sendmail("lockbox@vendor.example", ["ann@customer.example"], MAIL.format(id=id_))


@dataclass(frozen=True)
class Floor:
    """What is served: the statement that writes all rows of a submission, where, and how many mails a move takes."""

    engine: Engine
    rows_engine: Engine
    rows: str
    submitted_mails: int
    other_mails: int


def make_app(floor: Floor, relay: Relay) -> FastAPI:
    """Return the app: a table like that of requests, one Core statement a call."""
    app = FastAPI(docs_url=None, redoc_url=None)
    table = Table(TABLE, MetaData(), autoload_with=floor.engine)
    tenant, requester = new_id(), new_id()
    insert = table.insert().values(
        created_at=func.now(),
        asked_at=func.now(),
        deadline_at=func.now() + LATER,
        wake_at=func.now() + LATER,
    )
    update = table.update().where(table.c.id == bindparam("id_")).values(state="active", version=2)

    @app.get("/v1/access")
    async def check() -> BareAnswer:
        return BareAnswer()

    @app.post("/v1/requests", status_code=201)
    def file(body: BareRequest) -> BareReceipt:
        submitted = BareReceipt(id=new_id())
        row = {
            **body.model_dump(exclude={"tenant"}),
            "id": submitted.id,
            "tenant_id": tenant,
            "requester_id": requester,
            "submitted_by": requester,
            "token_id": requester,
            "mode": "enforce",
            "policy_version": 1,
            "quorum": 1,
            "approval_window": 43200,
            "state": "pending",
            "version": 1,
        }
        with floor.engine.begin() as connection:
            connection.execute(insert, row)
        return submitted

    @app.post("/rows/v1/requests", status_code=201)
    def file_rows(body: BareRequest) -> BareReceipt:
        submitted = BareReceipt(id=new_id())
        with floor.rows_engine.begin() as connection:
            connection.exec_driver_sql(floor.rows, {"id": submitted.id, "justification": body.justification})
        return submitted

    @app.post("/mail/v1/requests", status_code=201)
    def file_and_tell(body: BareRequest) -> BareReceipt:
        submitted = file(body)
        relay.tell(submitted.id, floor.submitted_mails)
        return submitted

    @app.post("/mail/v1/requests/{id_}/approve")
    def approve(id_: UUID) -> BareReceipt:
        with floor.engine.begin() as connection:
            connection.execute(update, {"id_": id_})
        relay.tell(id_, floor.other_mails)
        return BareReceipt(id=id_)

    return app


def main() -> None:
    """Serve as the API is served."""
    told: dict[str, str] = json.load(sys.stdin)
    port, smtp = map(int, sys.argv[1:])
    engine, rows_engine = (
        make_engine(told[url], role="bare", pool_size=MOST_COMMON, overflow=OVERFLOW) for url in ("url", "rows_url")
    )
    mails = int(told["submitted_mails"]), int(told["other_mails"])
    app = make_app(Floor(engine, rows_engine, told["rows"], *mails), Relay(smtp))
    uvicorn.run(app, port=port, log_config=None, access_log=False, server_header=False, proxy_headers=False)


if __name__ == "__main__":
    main()
