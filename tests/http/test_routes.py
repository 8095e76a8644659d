"""Every route of the app has an entry here: who may call it at all. A new route without one fails."""

from uuid import UUID

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from api.app import make_app
from tests.builders import SETTINGS
from tests.http.door import Door, facts

OPEN = {"GET /livez", "GET /readyz", "GET /openapi.json"}
EVERYBODY = ("erin", "max", "olga", "vera", "gate", "tara", "ann", "aude", "zoe")
# what each may get at best, with an id of nothing: 404 is "look, but there is none", 403 "not for you", 422 "ask better"
MATRIX = {
    "POST /v1/requests": "422 422 422 422 422 422 422 422 422",
    "GET /v1/requests": "200 200 200 200 200 200 200 200 200",
    "GET /v1/requests/{request_id}": "404 404 404 404 404 404 404 404 404",
    "GET /v1/requests/{request_id}/events": "404 404 404 404 404 404 404 404 404",
    "POST /v1/requests/{request_id}/approve": "404 404 404 404 404 404 404 404 404",
    "POST /v1/requests/{request_id}/{action}": "404 404 404 404 404 404 404 404 404",
    "GET /v1/access": "422 422 422 422 422 422 422 422 422",
}
