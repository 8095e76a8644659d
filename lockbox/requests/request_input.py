"""What an engineer asks for, or a system for an engineer, before it is judged."""

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
    """A system names the engineer for whom it files.

    `follows` is the request that is asked again by this one. Without `max_uses` it is as often as the policy says.
    `extends` is the request whose window goes on by this one, and `first_opened_at` when the first of these windows
    began. `case_check` is what the ticket system says of the case, once a door has asked it.
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
"""What `repeated` reads of a row, for a select list."""


def repeated(earlier: Any, **changes: Any) -> RequestInput:  # noqa: ANN401 - a row
    """What an earlier request asked for, and what is asked otherwise now; its row has its tenant's slug.

    It is not validated: what it names may have been erased in part.
    """
    values = values_of(RequestInput, earlier, facts_of(RequestInput, REPEAT))
    values |= {"tenant": earlier.tenant, "engineer": earlier.requester_id, "max_uses": earlier.max_uses}
    return RequestInput.model_construct(None, **values | {"context": earlier.context or {}} | changes)
