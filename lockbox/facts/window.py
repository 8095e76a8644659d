"""What a request's window was opened for, when it begins, and how often it can be used."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from sqlmodel import Field

from lockbox.facts.ask import SubmittedAsk
from lockbox.facts.fact import EVENT, Fact, Part
from lockbox.sql import Instant, Texts


class PublicWindow(Part):
    """The part of a window that every reader of the request sees.

    `opens_at` is the start if it is later than the approval. `granted_resources` and `granted_actions` are set if the
    window covers less than requested. `max_uses` is as requested or, if lower, as the policy permits; after the
    opening, it is as granted.
    """

    max_uses: Annotated[int | None, Fact("Uses", EVENT)] = Field(
        default=None,
        description="How many times the window can be used; null for any number.",
        schema_extra={"examples": [3]},
    )
    opened_at: datetime | None = Field(
        default=None,
        sa_type=Instant,
        description="When the window was opened; null if it was not.",
        schema_extra={"examples": ["2026-11-28T12:36:00Z"]},
    )
    opens_at: datetime | None = Field(
        default=None,
        sa_type=Instant,
        description="When the window begins, if that is later than its approval; else null.",
        schema_extra={"examples": ["2026-12-01T08:00:00Z"]},
    )
    extends: Annotated[UUID | None, Fact("Extends", EVENT)] = Field(
        default=None,
        foreign_key="requests.id",
        description="The request whose window this one extends; null if it is no extension.",
        schema_extra={"examples": ["0197f3a0-7c1e-7b11-9c55-3f8f0f6c9b02"]},
    )
    granted_resources: list[str] | None = Field(
        default=None,
        sa_type=Texts,
        description="The resources for which the window was opened; null if none was.",
        schema_extra={"examples": [["mailbox:finance@northwind.example"]]},
    )
    granted_actions: list[str] | None = Field(
        default=None,
        sa_type=Texts,
        description="The actions for which the window was opened; null if none was.",
        schema_extra={"examples": [["read"]]},
    )
    pre_approval_id: Annotated[UUID | None, Fact("Approved beforehand", EVENT)] = Field(
        default=None,
        description="What the customer had approved beforehand, if that opened the window; else null.",
        schema_extra={"examples": ["0197f3a0-7c1e-7b11-9c55-3f8f0f6c9b01"]},
    )
    break_glass: Annotated[bool, Fact("Break-glass", EVENT)] = Field(
        default=False,
        description="Whether the request is for break-glass, or its window was opened so: in an emergency, without "
        "the customer.",
        schema_extra={"examples": [False]},
    )


class Window(PublicWindow):
    """A window as it was or will be opened.

    `first_opened_at` is the start of the first window in the chain that this window extends. `used` is counted only
    if uses are limited.
    """

    used: int = 0
    first_opened_at: datetime | None = Field(default=None, sa_type=Instant)

    def resources_of(self, ask: SubmittedAsk) -> list[str]:
        return ask.resources if self.granted_resources is None else self.granted_resources

    def actions_of(self, ask: SubmittedAsk) -> list[str]:
        return ask.actions if self.granted_actions is None else self.granted_actions
