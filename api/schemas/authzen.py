"""Bodies of AuthZEN's Authorization API 1.0. Unknown members are ignored, as AuthZEN requires."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

from gate.decision_point import MOST_EVALUATIONS, AuthzenEntity, AuthzenQuestion, EvaluationsSemantic

REF = "#/components/schemas/{model}"


class AuthzenBody(BaseModel):
    """A part of a question. Values of another type are refused, not converted."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, hide_input_in_errors=True)


class AuthzenSubject(AuthzenBody):
    """Who wants access: a `user` of the gateway or of the issuer in `properties.iss`, or a `person` of Lockbox."""

    type: str
    id: str
    properties: dict[str, Any] = {}


class AuthzenAction(AuthzenBody):
    """What the subject wants to do: an action of the service."""

    name: str
    properties: dict[str, Any] = {}


class AuthzenResource(AuthzenBody):
    """What the subject wants to access: `type:id`, as engineers request it, of the tenant in `properties.tenant`."""

    type: str
    id: str
    properties: dict[str, Any] = {}


class EvaluationBody(AuthzenBody):
    """One question; `context` is accepted and ignored."""

    subject: AuthzenSubject
    action: AuthzenAction
    resource: AuthzenResource
    context: dict[str, Any] = {}

    @property
    def question(self) -> AuthzenQuestion:
        subject, resource = self.subject, self.resource
        return AuthzenQuestion(
            AuthzenEntity(subject.type, subject.id, subject.properties),
            self.action.name,
            AuthzenEntity(resource.type, resource.id, resource.properties),
        )


class EvaluationsOptions(AuthzenBody):
    """How to go through several questions."""

    evaluations_semantic: Annotated[EvaluationsSemantic, Field(strict=False)] = EvaluationsSemantic.EXECUTE_ALL


class EvaluationsBody(AuthzenBody):
    """Several questions. `subject`, `action` and `resource` apply to each question that leaves them out.

    Without `evaluations`, they are a single question.
    """

    subject: AuthzenSubject | None = None
    action: AuthzenAction | None = None
    resource: AuthzenResource | None = None
    context: dict[str, Any] = {}
    evaluations: list[dict[str, Any]] = Field(default=[], max_length=MOST_EVALUATIONS)
    options: EvaluationsOptions = EvaluationsOptions()


class AuthzenDecision(BaseModel):
    """The answer to one question; `context` says what is allowed and until when, or why not (`reason`, `detail`)."""

    decision: bool
    context: dict[str, str]


class AuthzenDecisions(BaseModel):
    """The answers to several questions, in their order."""

    evaluations: list[AuthzenDecision]


class AuthzenConfiguration(BaseModel):
    """Where AuthZEN's endpoints are."""

    policy_decision_point: str
    access_evaluation_endpoint: str
    access_evaluations_endpoint: str


def components() -> Mapping[str, Any]:
    _, made = models_json_schema([(EvaluationBody, "validation"), (EvaluationsBody, "validation")], ref_template=REF)
    found: Mapping[str, Any] = made["$defs"]
    return found


def body_of(model: type[AuthzenBody]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": REF.format(model=model.__name__)}}}
    return {"requestBody": {"required": True, "content": content}}
