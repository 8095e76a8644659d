"""Routes for the caller's own tokens."""

from datetime import timedelta
from uuid import UUID

from fastapi import Response

from api.call_routes import CallRouter
from api.deps import ClientInfoDep, CurrentUser, SessionDep, TokenRulesDep
from api.schemas.parts import problems, view_of
from api.schemas.tokens import IssuedTokenView, NewToken, Rotation, TokenList, TokenView
from lockbox.identity import api_tokens, token_creation
from lockbox.identity.api_tokens import IssuedToken
from lockbox.identity.token_creation import TokenInput

router = CallRouter(prefix="/v1/tokens", tags=["tokens"])


@router.get("", responses=problems())
def list_tokens(who: CurrentUser, session: SessionDep) -> TokenList:
    """List the caller's tokens that are not revoked, the newest first."""
    return TokenList(
        items=[view_of(TokenView, token, scopes=token.plain_scopes) for token in api_tokens.mine(session, who)]
    )


@router.post("", status_code=201, responses=problems(400, 409))
def create_token(
    body: NewToken,
    who: CurrentUser,
    origin: ClientInfoDep,
    session: SessionDep,
    laid_down: TokenRulesDep,
    response: Response,
) -> IssuedTokenView:
    """Create a token for oneself, after a fresh sign-in; its text is only in this answer.

    A service account gets its first token in the session that begins when its invitation is accepted.
    """
    bounds = frozenset(body.scopes), frozenset(body.services), frozenset(body.tenants)
    wanted = TokenInput(body.name, _days(body.days), *bounds)
    return _issued(token_creation.make(session, who, origin, wanted, laid_down), response)


@router.post("/{token_id}/rotate", status_code=201, responses=problems(400, 404, 409))
def rotate_token(
    token_id: UUID,
    who: CurrentUser,
    origin: ClientInfoDep,
    session: SessionDep,
    laid_down: TokenRulesDep,
    response: Response,
    body: Rotation | None = None,
) -> IssuedTokenView:
    """Replace a token of one's own, after a fresh sign-in or with that very token; both tokens work for a while."""
    asked = body or Rotation()
    overlap = None if asked.overlap_hours is None else timedelta(hours=asked.overlap_hours)
    days = _days(asked.days)
    return _issued(
        token_creation.rotate(session, who, origin, token_id, laid_down, lifetime=days, overlap=overlap), response
    )


@router.delete("/{token_id}", status_code=204, responses=problems(404))
def revoke_token(token_id: UUID, who: CurrentUser, origin: ClientInfoDep, session: SessionDep) -> None:
    """Revoke a token of one's own at once; repeating it is harmless."""
    token_creation.revoke(session, who, origin, token_id)


def _days(days: int | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)


def _issued(issued: IssuedToken, response: Response) -> IssuedTokenView:
    response.headers["cache-control"] = "no-store"
    return view_of(IssuedTokenView, issued.token, scopes=issued.token.plain_scopes, token=issued.text)
