"""What is on record of the requester when a request is submitted."""

from datetime import datetime
from typing import Annotated

from sqlmodel import Field

from lockbox.facts.enumerations import AuthMethod, SignInKind
from lockbox.facts.fact import ERASED, EVENT, Fact, Part
from lockbox.sql import Instant, words


class Requester(Part):
    """Where the vendor's directory says that a requester works and is, and how they had signed in; None is unknown.

    Countries are alpha-2 codes of ISO 3166-1. `directory_as_of` is when the directory said so. Of what a service
    account has submitted for somebody, the sign-in is not known: `sign_in` says that it was one.
    """

    employing_entity: Annotated[str | None, Fact("Employing entity", EVENT, ERASED)] = Field(
        default=None, max_length=200
    )
    office_country: Annotated[str | None, Fact("Country of the office", EVENT, ERASED)] = Field(
        default=None, max_length=2
    )
    physical_country: Annotated[str | None, Fact("Country where they are", EVENT, ERASED)] = Field(
        default=None, max_length=2
    )
    directory_as_of: Annotated[datetime | None, Fact("Directory as of", EVENT)] = Field(default=None, sa_type=Instant)
    sign_in: Annotated[SignInKind | None, Fact("Sign-in", EVENT)] = Field(default=None, sa_type=words(SignInKind))
    sign_in_means: Annotated[AuthMethod | None, Fact("Signed in by", EVENT)] = Field(
        default=None, sa_type=words(AuthMethod)
    )
    signed_in_at: Annotated[datetime | None, Fact("Signed in at", EVENT)] = Field(default=None, sa_type=Instant)
