"""What is on record about the requester when a request is submitted."""

from datetime import datetime
from typing import Annotated

from sqlmodel import AutoString, Field

from lockbox.facts.enumerations import AuthMethod, SignInKind
from lockbox.facts.fact import ERASED, EVENT, LOG, Fact, Part
from lockbox.sql import Instant, words


class Requester(Part):
    """The requester's employer, office and location by the vendor's directory, and their sign-in; None means unknown.

    If a service account submits for an engineer, the engineer's sign-in is unknown and `sign_in` is `system`.
    """

    employing_entity: Annotated[str | None, Fact("Employing entity", EVENT | LOG, ERASED)] = Field(
        default=None,
        sa_type=AutoString(length=200),
        description="Who employs the person, as the vendor's directory says; null if it does not say.",
        schema_extra={"examples": ["Example Support GmbH"]},
    )
    office_country: Annotated[str | None, Fact("Country of the office", EVENT | LOG, ERASED)] = Field(
        default=None,
        sa_type=AutoString(length=2),
        description="The country of the person's office (ISO 3166-1 alpha-2); null if the directory does not say.",
        schema_extra={"examples": ["DE"]},
    )
    physical_country: Annotated[str | None, Fact("Country they are in", EVENT | LOG, ERASED)] = Field(
        default=None,
        sa_type=AutoString(length=2),
        description="The country in which the person is (ISO 3166-1 alpha-2); null if the directory does not say.",
        schema_extra={"examples": ["PL"]},
    )
    directory_as_of: Annotated[datetime | None, Fact("Directory as of", EVENT)] = Field(
        default=None,
        sa_type=Instant,
        description="When the vendor's directory said where the requester works; null if it did not.",
        schema_extra={"examples": ["2026-11-28T08:00:00Z"]},
    )
    sign_in: Annotated[SignInKind | None, Fact("Sign-in", EVENT)] = Field(
        default=None,
        sa_type=words(SignInKind),
        description="With what the requester came: `session`, `provider_token`, `token`, `device_login`, or "
        "`system` for a service account that submitted for them; null for requests of earlier versions.",
        schema_extra={"examples": ["session"]},
    )
    sign_in_means: Annotated[AuthMethod | None, Fact("Signed in by", EVENT | LOG)] = Field(
        default=None,
        sa_type=words(AuthMethod),
        description="How the requester had signed in; null if that is not known, as for a service account.",
        schema_extra={"examples": ["passkey"]},
    )
    signed_in_at: Annotated[datetime | None, Fact("Signed in at", EVENT | LOG)] = Field(
        default=None,
        sa_type=Instant,
        description="When the person had signed in last; null for an API token, and where it is not known.",
        schema_extra={"examples": ["2026-11-28T11:58:00Z"]},
    )
