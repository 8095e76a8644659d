"""CSV files that the API and the portal answer with."""

from collections.abc import Iterable

from fastapi import Response

from lockbox.admin import access_review, statistics
from lockbox.admin.access_review import AccessReview
from lockbox.admin.statistics import Statistics

CSV = "text/csv; charset=utf-8"


def access_review_csv(found: AccessReview) -> Response:
    whose = found.tenant.slug if found.tenant else "vendor"
    return _csv(f"access-review-{whose}-{found.at:%Y-%m-%d}", access_review.table(found))


def statistics_csv(found: Statistics) -> Response:
    whose = found.tenant.slug if found.tenant else "all"
    return _csv(f"statistics-{whose}-{found.until:%Y-%m-%d}", statistics.table(found))


def _csv(name: str, rows: Iterable[bytes]) -> Response:
    headers = {"cache-control": "no-store", "content-disposition": f'attachment; filename="{name}.csv"'}
    return Response(b"".join(rows), media_type=CSV, headers=headers)
