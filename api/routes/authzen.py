"""AuthZEN's Authorization API 1.0, which answers 200 both to allow and to deny.

A gateway's forward-auth must therefore never point here. Questions that look like forward-auth are refused.
"""

import json
from collections.abc import Mapping, Sequence
from email.message import Message
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from api import incoming_request
from api.call_routes import CallRouter
from api.deps import SettingsDep
from api.problems import problem
from api.schemas.authzen import (
    AuthzenConfiguration,
    AuthzenDecision,
    AuthzenDecisions,
    EvaluationBody,
    EvaluationsBody,
    body_of,
)
from api.schemas.parts import problems
from gate import answers
from gate.answers import SENTENCES, Denial, GateReason
from gate.app import AllowedCall
from gate.credentials import GatewayCredential
from gate.decision_point import AuthzenQuestion, DecisionPoint
from gate.dialects import OF_FORWARD_AUTH
from lockbox import mistakes

router = CallRouter(tags=["authzen"])
Body = TypeVar("Body", EvaluationBody, EvaluationsBody)

REQUEST_ID = "x-request-id"
ENTITIES = ("subject", "action", "resource")
NO_TOKEN = "Send a token with the scope gate:authzen: Authorization: Bearer lbx_…"  # noqa: S105 - a sentence
OTHER_TOKEN = "This token is not for AuthZEN. Make one with the scope gate:authzen for the service."  # noqa: S105
FORWARD_AUTH = (
    "This is a question of forward-auth, to which a no would be a yes here: let the gateway ask /gate/v1/SERVICE."
)
UNAVAILABLE = frozenset({GateReason.BUSY, GateReason.BEHIND})


class RefusedQuestion(Exception):  # noqa: N818 - it carries an answer
    """An error that is answered in place of a decision."""

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.answer = problem(status, code, detail, headers=headers)

    @classmethod
    def malformed(cls, detail: str) -> "RefusedQuestion":
        return cls(400, "malformed-evaluation", detail)


@router.post(
    "/access/v1/evaluation",
    response_model=AuthzenDecision,
    responses=problems(),
    openapi_extra=body_of(EvaluationBody),
)
async def evaluate_access(request: Request) -> Response:
    """Decide one question. A refusal is 200 with `decision` false; anything but a well-formed question is 400.

    Needs a service account's token with the scope `gate:authzen`, bound to one service.
    """
    return await _identified(request, several=False)


@router.post(
    "/access/v1/evaluations",
    response_model=AuthzenDecisions | AuthzenDecision,
    responses=problems(),
    openapi_extra=body_of(EvaluationsBody),
)
async def evaluate_access_batch(request: Request) -> Response:
    """Decide several questions in their order, 50 at most.

    Without `evaluations`, the body is one question, as for `/access/v1/evaluation`. A malformed question among
    several is refused with the reason `malformed`.
    """
    return await _identified(request, several=True)


@router.get("/.well-known/authzen-configuration")
async def get_authzen_configuration(chosen: SettingsDep, response: Response) -> AuthzenConfiguration:
    """Say where AuthZEN's endpoints are."""
    response.headers["cache-control"] = "no-store"
    here = chosen.public_url
    return AuthzenConfiguration(
        policy_decision_point=here,
        access_evaluation_endpoint=f"{here}/access/v1/evaluation",
        access_evaluations_endpoint=f"{here}/access/v1/evaluations",
    )


async def _identified(request: Request, *, several: bool) -> Response:
    shown = request.headers.getlist(REQUEST_ID)
    try:
        if len(shown) > 1:
            raise RefusedQuestion.malformed("Send X-Request-ID once.")
        said = await _decided(request, several=several)
        answer: Response = JSONResponse(said, headers={"cache-control": "no-store"})
    except RefusedQuestion as refused:
        answer = refused.answer
    if shown:
        answer.headers[REQUEST_ID] = shown[0]
    return answer


async def _decided(request: Request, *, several: bool) -> dict[str, Any]:
    if any(name in OF_FORWARD_AUTH for name, value in request.headers.raw if value):
        raise RefusedQuestion.malformed(FORWARD_AUTH)
    point: DecisionPoint = request.app.state.gateway.decision_point
    credential = await _credential(request, point)
    body = _object(request, await request.body())
    if not several or body.get("evaluations", []) == []:
        return _decision(await point.decide(credential, _read(EvaluationBody, body).question))
    asked = _read(EvaluationsBody, body)
    defaults = {name: body[name] for name in ENTITIES if name in body}
    questions = [_question(defaults | evaluation) for evaluation in asked.evaluations]
    found = await point.decide_all(credential, questions, asked.options.evaluations_semantic)
    return {"evaluations": [_decision(one) for one in found]}


async def _credential(request: Request, point: DecisionPoint) -> GatewayCredential:
    shown = request.headers.getlist("authorization")
    scheme, _, token = shown[0].partition(" ") if len(shown) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token:
        raise RefusedQuestion(401, "invalid-token", NO_TOKEN, {"www-authenticate": "Bearer"})
    found = await point.credential(token.strip())
    if isinstance(found, GatewayCredential):
        incoming_request.vouch(request)
        return found
    if found in UNAVAILABLE:
        raise RefusedQuestion(503, found.value, SENTENCES[found], {"retry-after": "1"})
    if found is GateReason.MALFORMED:
        raise RefusedQuestion(403, "wrong-role", OTHER_TOKEN)
    raise RefusedQuestion(401, "invalid-token", NO_TOKEN, {"www-authenticate": "Bearer"})


def _object(request: Request, body: bytes) -> dict[str, Any]:
    kinds = request.headers.getlist("content-type")
    if len(kinds) != 1 or not _is_json(kinds[0]) or "content-encoding" in request.headers:
        raise RefusedQuestion.malformed("Send the question as Content-Type: application/json, and not encoded.")
    try:
        found = json.loads(body.decode(), object_pairs_hook=_each_once, parse_constant=_refused)
    except (ValueError, RecursionError):
        raise RefusedQuestion.malformed("Send one JSON object, with each member once.") from None
    if not isinstance(found, dict):
        raise RefusedQuestion.malformed("Send a JSON object.")
    return found


def _is_json(kind: str) -> bool:
    said = Message()
    said["content-type"] = kind
    charset = said.get_param("charset", "utf-8")
    return said.get_content_type() == "application/json" and str(charset).lower() in {"utf-8", "utf8"}


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a member is there twice")
    return found


def _refused(name: str) -> None:
    raise ValueError(name)


def _read(model: type[Body], body: Mapping[str, Any]) -> Body:
    try:
        return model.model_validate(body)
    except ValidationError as wrong:
        raise RefusedQuestion.malformed(_first(wrong)) from None


def _question(body: Mapping[str, Any]) -> AuthzenQuestion | Denial:
    try:
        return EvaluationBody.model_validate(body).question
    except ValidationError as wrong:
        return Denial(GateReason.MALFORMED, _first(wrong))


def _first(wrong: ValidationError) -> str:
    error: dict[str, Any] = dict(wrong.errors(include_url=False, include_input=False)[0])
    return f"{'.'.join(map(str, error['loc'])) or 'body'}: {mistakes.say(error)}."


def _decision(found: AllowedCall | Denial) -> dict[str, Any]:
    if isinstance(found, AllowedCall):
        asked = {name: str(value) for name, value in found.question._asdict().items()}
        ends = {"request": str(found.window.request_id), "until": answers.written(found.window.until)}
        if found.window.break_glass:
            ends["break_glass"] = "true"
        return {"decision": True, "context": asked | ends}
    why = {"reason": found.reason.value, "detail": found.detail or SENTENCES[found.reason]}
    return {"decision": False, "context": why | ({"request_form": found.form} if found.form else {})}
