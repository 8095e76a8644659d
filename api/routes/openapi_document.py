"""The route of the OpenAPI document."""

from functools import cache

from fastapi import Response

from api.call_routes import CallRouter
from api.document import FILE

router = CallRouter(include_in_schema=False)


@router.get("/openapi.json")
async def get_openapi_document() -> Response:
    return Response(_read(), media_type="application/json")


@cache
def _read() -> bytes:
    return FILE.read_bytes()
