"""The route for Prometheus: from this machine, or with the metrics token."""

import hmac
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api import loopback, metrics
from api.deps import SettingsDep
from config.settings import Settings
from lockbox.errors import MetricsClosed
from lockbox.monitoring.metrics import MetricsExporter

router = APIRouter(tags=["health"])


async def exporter(request: Request) -> MetricsExporter:
    """Return this process' exporter."""
    found: MetricsExporter = request.app.state.exporter
    return found


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def show(request: Request, chosen: SettingsDep, source: Annotated[MetricsExporter, Depends(exporter)]) -> Response:
    """Return the metrics in Prometheus' text form; without Redis or Postgres, those of the other."""
    if not (_has_token(request, chosen) or loopback.is_local(request)):
        raise MetricsClosed(
            "Metrics are served to this machine only. From elsewhere, send LOCKBOX_METRICS_TOKEN as a bearer token."
        )
    return Response(
        metrics.exposition(source.read()), media_type=CONTENT_TYPE_LATEST, headers={"cache-control": "no-store"}
    )


def _has_token(request: Request, chosen: Settings) -> bool:
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    if chosen.metrics_token is None or scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(shown.strip().encode(), chosen.metrics_token.get_secret_value().encode())
