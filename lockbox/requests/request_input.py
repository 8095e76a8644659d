"""A submission of an engineer, or of a system for an engineer, before its evaluation."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self
from uuid import UUID

from pydantic import ConfigDict
from sqlmodel import Field

from catalogue.context_schema import ContextValue
from lockbox.facts.ask import SubmittedAsk
from lockbox.facts.enumerations import CaseCheck
from lockbox.facts.fact import REPEAT, facts_of, values_of


class RequestInput(SubmittedAsk):
    """`engineer` is the person for whom a system submits. Without `max_uses`, the policy sets the number of uses.

    `follows` is the request that is resubmitted. `extends` is the request whose window is extended, and
    `first_opened_at` is when the first window of the chain began. `case_check` is None until the ticket system was
    asked.
    """

    model_config = ConfigDict(frozen=True)  # type: ignore[assignment] # SQLModel's own kind of configuration

    tenant: str
    engineer: UUID | None = None
    max_uses: int | None = None
    follows: UUID | None = None
    break_glass: bool = False
    extends: UUID | None = None
    first_opened_at: datetime | None = None
    case_check: CaseCheck | None = None
    context: Mapping[str, ContextValue] = Field(default_factory=dict)

    def in_system(self, named: str) -> Self:
        return self.model_copy(update={"case_system": named})

    def checked(self, check: CaseCheck | None) -> Self:
        return self.model_copy(update={"case_check": check})


REPEATED = ", ".join(("tenant", "requester_id", "max_uses", "context", *facts_of(RequestInput, REPEAT)))
"""The columns that `repeated` reads, for a select list."""


def repeated(earlier: Any, **changes: Any) -> RequestInput:  # noqa: ANN401 - a row
    """Return the submission that repeats a request, with `changes`.

    `earlier` is a row with the columns `REPEATED`; its `tenant` is the tenant's slug. The result is not validated,
    because its values may be erased in part.
    """
    values = values_of(RequestInput, earlier, facts_of(RequestInput, REPEAT))
    values |= {"tenant": earlier.tenant, "engineer": earlier.requester_id, "max_uses": earlier.max_uses}
    return RequestInput.model_construct(None, **values | {"context": earlier.context or {}} | changes)
