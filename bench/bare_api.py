"""The floor of calls over HTTP: `python -m bench.bare_api PORT SMTP` serves what its standard input says as JSON.

Each call is one SQL statement and a commit, without any checks. Under `/v1` a submission writes one row. Under
`/rows` it writes the same rows as Lockbox. Under `/mail` it writes one row and hands mails to the relay at the port
SMTP before it answers. The access check does nothing at all.
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
    """The body of a call; nothing in it is checked."""

    tenant: str
    service: str
    resources: list[str]
    actions: list[str]
    reason_code: str
    justification: str
    case_ref: str
    access_window: int


class BareReceipt(BaseModel):
    """The body of an answer."""

    id: UUID


class BareAnswer(BaseModel):
    """The answer of a route that does nothing."""

    open: bool = True


class Relay:
    """Hands over mails on a kept connection for each thread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._kept = threading.local()

    def tell(self, id_: UUID, count: int) -> None:
        """Send this many mails."""
        if not hasattr(self._kept, "relay"):
            self._kept.relay = smtplib.SMTP("127.0.0.1", self._port, timeout=10)
        for _ in range(count):
            self._kept.relay.sendmail("lockbox@vendor.example", ["ann@customer.example"], MAIL.format(id=id_))


@dataclass(frozen=True)
class Floor:
    """What is served: SQL that writes all rows of a submission, where it runs, and how many mails a move takes."""

    engine: Engine
    rows_engine: Engine
    rows: str
    submitted_mails: int
    other_mails: int


def make_app(floor: Floor, relay: Relay) -> FastAPI:
    """Return the app, with a table like the requests table, and one SQLAlchemy Core statement for each call."""
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
