"""An in-house admin tool: which tenant a record is of, only its database knows, and what is done stands in the body.

No gateway can judge that, so the tool checks in its code, between finding the record and touching it: the tenant and
the resource come from the row, never from the caller. It reports what it did, so that the customer can read it.

Try it:  sqlite3 tool.db "CREATE TABLE records (id INTEGER PRIMARY KEY, tenant TEXT, resource TEXT, note TEXT)"
         python admin_tool.py --lockbox http://127.0.0.1:8000 --database tool.db --token-file guard.token \
             --reports-token-file reports.token
         curl -H "Authorization: Bearer $TOKEN" --json '{"action": "read"}' http://127.0.0.1:9001/records/7
"""

import argparse
import sqlite3
from contextlib import closing
from typing import Annotated, Literal

import uvicorn
from fastapi import FastAPI, Header
from fastapi.responses import JSONResponse
from lockbox_guard import Guard, Refused
from pydantic import BaseModel


class RecordAct(BaseModel):
    """What is to be done with a record."""

    action: Literal["read", "change"]
    note: str = ""


def make_tool(guard: Guard, database: str) -> FastAPI:
    """Return the tool."""
    tool = FastAPI(openapi_url=None)

    @tool.post("/records/{number}")
    def act(number: int, body: RecordAct, authorization: Annotated[str, Header()] = "") -> JSONResponse:
        with closing(sqlite3.connect(database)) as records, records:
            found = records.execute("SELECT tenant, resource, note FROM records WHERE id = ?", (number,)).fetchone()
            # A record that is not there is refused like one that is: which ones there are is the customers' too.
            tenant, resource, note = found or ("unknown", "record:unknown", "")
            token = authorization.removeprefix("Bearer ")
            try:
                allowed = guard.check(tenant=tenant, resource=resource, action=body.action, token=token)
            except Refused as refused:
                said = {"code": refused.reason, "detail": refused.detail, "request_form": refused.form}
                return JSONResponse(said, refused.status)
            if not found:
                return JSONResponse({"code": "not-found"}, 404)
            if body.action == "change":
                records.execute("UPDATE records SET note = ? WHERE id = ?", (body.note, number))
            guard.report(allowed, method="POST", outcome="done")
            return JSONResponse({"resource": resource, "note": body.note if body.action == "change" else note})

    return tool


def main() -> None:
    """Serve the tool."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lockbox", required=True, help="address of Lockbox, such as http://127.0.0.1:8000")
    parser.add_argument("--database", required=True, help="SQLite file with the records")
    parser.add_argument("--token-file", required=True, help="file that holds a token with the scope gate:guard")
    parser.add_argument("--reports-token-file", required=True, help="likewise, with the scope activity:report")
    parser.add_argument("--port", type=int, default=9001, help="listens on loopback (%(default)s)")
    asked = parser.parse_args()
    guard = Guard(
        asked.lockbox,
        service="exchange-online",
        token_file=asked.token_file,
        reports_token_file=asked.reports_token_file,
    )
    uvicorn.run(make_tool(guard, asked.database), host="127.0.0.1", port=asked.port, log_level="warning")
    guard.stop()


if __name__ == "__main__":
    main()
