"""The route for Prometheus: from this very machine, or with a token of its own."""

import hmac
from ipaddress import ip_address
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api import metrics
from api.deps import Chosen
from config.settings import Settings
from lockbox.refusals import MetricsClosed
from lockbox.watch.figures import Exporter

FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")

router = APIRouter(tags=["health"])


def exporter(request: Request) -> Exporter:
    """Return the exporter of this process."""
    found: Exporter = request.app.state.exporter
    return found


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def show(request: Request, chosen: Chosen, source: Annotated[Exporter, Depends(exporter)]) -> Response:
    """Answer with the figures in Prometheus' text form; without Redis or Postgres with those of the other."""
    if not (_has_token(request, chosen) or _is_from_here(request)):
        raise MetricsClosed(
            "Metrics are for this machine, or for whoever sends LOCKBOX_METRICS_TOKEN as a bearer token."
        )
    return Response(
        metrics.exposition(source.read()), media_type=CONTENT_TYPE_LATEST, headers={"cache-control": "no-store"}
    )


def _is_from_here(request: Request) -> bool:
    """Whether the other end of the connection is on this machine, and speaks for itself: a proxy here does not."""
    if request.client is None or any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ip_address(request.client.host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _has_token(request: Request, chosen: Settings) -> bool:
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    if chosen.metrics_token is None or scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(shown.strip().encode(), chosen.metrics_token.get_secret_value().encode())
