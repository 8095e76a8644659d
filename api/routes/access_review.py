"""Routes for access reviews."""

from fastapi import Response

from api.call_routes import CallRouter
from api.csv_answers import access_review_csv
from api.deps import CurrentUser, SessionDep
from api.schemas.access_review import AccessReviewView
from api.schemas.parts import Slug, problems
from lockbox.admin import access_review

router = CallRouter()

TABLE = problems() | {200: {"content": {"text/csv": {}}}}


@router.get("/v1/tenants/{slug}/access-review", tags=["tenants"], responses=problems(404))
def get_access_review(slug: Slug, who: CurrentUser, session: SessionDep) -> AccessReviewView:
    """Show everyone with a role at a tenant, why they may approve, and when they last signed in.

    The answer also lists the vendor's people with more than one role. For the tenant's admins and auditors.
    """
    return AccessReviewView.of(access_review.of_tenant(session, who, slug))


@router.get(
    "/v1/tenants/{slug}/access-review/export",
    tags=["tenants"],
    response_class=Response,
    responses=TABLE | problems(404),
)
def export_access_review(slug: Slug, who: CurrentUser, session: SessionDep) -> Response:
    """Export the access review as CSV: a row for each person."""
    return access_review_csv(access_review.of_tenant(session, who, slug))


@router.get("/v1/vendor/access-review", tags=["vendor"], responses=problems())
def get_vendor_access_review(who: CurrentUser, session: SessionDep) -> AccessReviewView:
    """Show everyone with a role at the vendor, when they last signed in, and who has two roles.

    For its operators and auditors.
    """
    return AccessReviewView.of(access_review.of_vendor(session, who))


@router.get("/v1/vendor/access-review/export", tags=["vendor"], response_class=Response, responses=TABLE)
def export_vendor_access_review(who: CurrentUser, session: SessionDep) -> Response:
    """Export the access review as CSV: a row for each person."""
    return access_review_csv(access_review.of_vendor(session, who))
