"""The route for Prometheus."""

import hmac

from fastapi import Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api import loopback, metrics
from api.call_routes import CallRouter
from api.deps import DatabaseDep, SettingsDep
from config.settings import Settings
from lockbox.errors import MetricsClosed
from lockbox.monitoring.metrics import read, read_gate

router = CallRouter(tags=["health"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def get_metrics(request: Request, chosen: SettingsDep, db: DatabaseDep) -> Response:
    """Return the metrics in Prometheus' text form. If Redis or Postgres is away, its metrics are left out.

    Shared counters are read at each call, so no counter goes back when another process answers. Gate answers that are
    not written yet are counted only by the process that gave them.
    """
    if not (_has_token(request, chosen) or loopback.is_local(request)):
        raise MetricsClosed(
            "Metrics are served to this machine only. From elsewhere, send LOCKBOX_METRICS_TOKEN as a bearer token."
        )
    unwritten = request.app.state.gateway.writer.unwritten
    shown = metrics.exposition(read(db), read_gate(db), unwritten)
    return Response(shown, media_type=CONTENT_TYPE_LATEST, headers={"cache-control": "no-store"})


def _has_token(request: Request, settings: Settings) -> bool:
    sent = request.headers.getlist("authorization")
    scheme, _, shown = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
    if settings.metrics_token is None or scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(shown.strip().encode(), settings.metrics_token.get_secret_value().encode())
