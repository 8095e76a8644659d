"""Some of a policy's terms, as a rule sets them for what it matches; pure."""

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator

from lockbox.facts.enumerations import ApproveMeans
from lockbox.requests.policy_parts import (
    AccessWindow,
    AnswerWindow,
    Approvals,
    BreakGlassNumber,
    BreakGlassPeople,
    BreakGlassServices,
    BreakGlassWindow,
    Characters,
    ChosenCasePatterns,
    ChosenCountries,
    ChosenReasons,
    ChosenTiers,
    Comments,
    EscalationMoments,
    OverdueFinding,
    PasskeyWait,
    PolicyPart,
    Reminders,
    RequesterMeans,
    SignInAge,
    Stages,
    StartAhead,
    Switch,
    UnconfirmedCase,
    Uses,
    WarningTime,
)


class Overrides(PolicyPart):
    """Some of the terms, for what a rule matches; None is no opinion."""

    model_config = ConfigDict(json_schema_extra={"not": {"additionalProperties": {"type": "null"}}})

    vendor_review: Switch | None = None
    review_window: AnswerWindow | None = None
    approval_window: AnswerWindow | None = None
    access_ceiling: AccessWindow | None = None
    total_access_ceiling: AccessWindow | None = None
    start_ahead: StartAhead | None = None
    max_uses: Uses | None = None
    quorum: Approvals | None = None
    stages: Annotated[Stages, Field(min_length=1)] | None = None
    tiers: Annotated[ChosenTiers, Field(min_length=1)] | None = None
    escalation: Annotated[EscalationMoments, Field(min_length=1)] | None = None
    approval_reminders: Annotated[Reminders, Field(min_length=1)] | None = None
    review_reminders: Annotated[Reminders, Field(min_length=1)] | None = None
    review_escalation: Annotated[EscalationMoments, Field(min_length=1)] | None = None
    closing_warning: WarningTime | None = None
    report_on_close: Switch | None = None
    reasons: ChosenReasons | None = None
    require_case: Switch | None = None
    case_patterns: Annotated[ChosenCasePatterns, Field(min_length=1)] | None = None
    unconfirmed_case: UnconfirmedCase | None = None
    justification_least: Characters | None = None
    mail_link: Switch | None = None
    mail_justification: Switch | None = None
    mail_suffices: Switch | None = None
    approve_means: ApproveMeans | None = None
    first_passkey_wait: PasskeyWait | None = None
    sign_in_age: SignInAge | None = None
    revoke_sign_in_age: SignInAge | None = None
    questions_stop_clock: Switch | None = None
    comment_required: Annotated[Comments, Field(min_length=1)] | None = None
    break_glass_services: BreakGlassServices | None = None
    break_glass_people: BreakGlassPeople | None = None
    break_glass_ceiling: BreakGlassWindow | None = None
    break_glass_monthly: BreakGlassNumber | None = None
    overdue_finding: OverdueFinding | None = None
    countries: ChosenCountries | None = None
    requester_means: RequesterMeans | None = None
    requester_sign_in_age: SignInAge | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.given():
            raise ValueError("set at least one of the terms")
        return self

    def given(self) -> dict[str, Any]:
        """Return the terms that are set, by name."""
        return {name: value for name, value in self if value is not None}
