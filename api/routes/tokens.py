"""Routes of tokens: people list, make, rotate and revoke their own, and nobody anybody else's."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Response

from api.deps import Chosen, Where, Who, Work
from api.schemas.parts import problems
from api.schemas.tokens import IssuedView, NewToken, Rotation, TokenList, TokenView
from lockbox.identity import api_tokens, token_creation
from lockbox.identity.api_tokens import Issued
from lockbox.identity.credentials import Token
from lockbox.identity.token_creation import Rules, Wanted

router = APIRouter(prefix="/v1/tokens", tags=["tokens"])


async def rules(chosen: Chosen) -> Rules:
    """Return what this installation has laid down for tokens."""
    return Rules(
        chosen.environment,
        timedelta(days=chosen.token_days),
        timedelta(days=chosen.most_token_days),
        timedelta(hours=chosen.token_overlap_hours),
        frozenset(chosen.services),
    )


LaidDown = Annotated[Rules, Depends(rules)]


@router.get("", responses=problems())
def list_tokens(who: Who, session: Work) -> TokenList:
    """List the caller's tokens that are not revoked, the newest first."""
    return TokenList(items=[TokenView(**_facts(token)) for token in api_tokens.mine(session, who)])


@router.post("", status_code=201, responses=problems(400, 429))
def make(body: NewToken, who: Who, came: Where, session: Work, laid_down: LaidDown, response: Response) -> IssuedView:
    """Make a token for oneself, after a fresh sign-in; this answer alone holds its text.

    A machine gets its first one like everybody: in the session that begins where its invitation is accepted.
    """
    wanted = Wanted(body.name, _days(body.days), frozenset(body.scopes), frozenset(body.services))
    return _issued(token_creation.make(session, who, came, wanted, laid_down), response)


@router.post("/{token_id}/rotate", status_code=201, responses=problems(400, 404, 409, 429))
def rotate(
    token_id: UUID,
    who: Who,
    came: Where,
    session: Work,
    laid_down: LaidDown,
    response: Response,
    body: Rotation | None = None,
) -> IssuedView:
    """Replace a token of one's own, after a fresh sign-in or by showing that very token; both work for a while."""
    asked = body or Rotation()
    overlap = None if asked.overlap_hours is None else timedelta(hours=asked.overlap_hours)
    days = _days(asked.days)
    return _issued(
        token_creation.rotate(session, who, came, token_id, laid_down, lifetime=days, overlap=overlap), response
    )


@router.delete("/{token_id}", status_code=204, responses=problems(404))
def revoke(token_id: UUID, who: Who, came: Where, session: Work) -> None:
    """Make a token of one's own worthless at once; doing it again does no harm."""
    token_creation.revoke(session, who, came, token_id)


def _days(days: int | None) -> timedelta | None:
    return None if days is None else timedelta(days=days)


def _facts(token: Token) -> dict[str, object]:
    return {name: getattr(token, name) for name in TokenView.model_fields}


def _issued(issued: Issued, response: Response) -> IssuedView:
    response.headers["cache-control"] = "no-store"
    return IssuedView(**_facts(issued.token), token=issued.text)
