"""The floor of intake: `python -m bench.bare PORT` serves one endpoint with one insert, on the URL it reads."""

import sys
from datetime import timedelta
from uuid import UUID

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import Engine, MetaData, Table, func

from api.app import OVERFLOW, POOL
from lockbox.database import make_engine
from lockbox.ids import new_id

TABLE = "bare_requests"
LATER = timedelta(hours=12)


class Filing(BaseModel):
    """What comes in; nothing of it is judged."""

    tenant: str
    service: str
    resources: list[str]
    actions: list[str]
    reason_code: str
    justification: str
    case_ref: str
    access_window: int


class Filed(BaseModel):
    """What goes out."""

    id: UUID


def make_app(engine: Engine) -> FastAPI:
    """Return the app: a table like that of requests, one Core insert a call."""
    app = FastAPI(docs_url=None, redoc_url=None)
    table = Table(TABLE, MetaData(), autoload_with=engine)
    tenant, requester = new_id(), new_id()
    insert = table.insert().values(
        created_at=func.now(),
        asked_at=func.now(),
        deadline_at=func.now() + LATER,
        wake_at=func.now() + LATER,
    )

    @app.post("/", status_code=201)
    def file(body: Filing) -> Filed:
        filed = Filed(id=new_id())
        row = {
            **body.model_dump(exclude={"tenant"}),
            "id": filed.id,
            "tenant_id": tenant,
            "requester_id": requester,
            "filed_by": requester,
            "token_id": requester,
            "mode": "enforce",
            "policy_version": 1,
            "quorum": 1,
            "approval_window": 43200,
            "state": "pending",
            "version": 1,
        }
        with engine.begin() as connection:
            connection.execute(insert, row)
        return filed

    return app


def main() -> None:
    """Serve as the API is served."""
    engine = make_engine(sys.stdin.read(), role="bare", pool_size=POOL, overflow=OVERFLOW)
    port = int(sys.argv[1])
    uvicorn.run(
        make_app(engine), port=port, log_config=None, access_log=False, server_header=False, proxy_headers=False
    )


if __name__ == "__main__":
    main()
