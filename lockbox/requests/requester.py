"""What is on record of the requester when a request was submitted, and how severe the requester calls it; pure."""

from dataclasses import dataclass
from datetime import datetime

from lockbox.facts.enumerations import AuthMethod, SignInKind


@dataclass(frozen=True)
class RequesterFacts:
    """Where the vendor's directory says that a requester works and is, and how they had signed in; None is unknown.

    Countries are alpha-2 codes of ISO 3166-1. `directory_as_of` is when the directory said so. Of what a service
    account has submitted for somebody, the sign-in is not known: `sign_in` says that it was one.
    """

    employing_entity: str | None = None
    office_country: str | None = None
    physical_country: str | None = None
    directory_as_of: datetime | None = None
    sign_in: SignInKind | None = None
    sign_in_means: AuthMethod | None = None
    signed_in_at: datetime | None = None

    @property
    def countries(self) -> frozenset[str | None]:
        """Where their office is and where they are."""
        return frozenset({self.office_country, self.physical_country})


UNKNOWN = RequesterFacts()
DIRECTORY_FACTS = ("employing_entity", "office_country", "physical_country", "directory_as_of")
"""The facts that the vendor's directory says."""
