"""Show an access review in the terminal."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cli.route_command import TableOf
from cli.terminal import Listing, Part
from cli.values import moment


@dataclass(frozen=True)
class AccessReviewTable(TableOf):
    def below(self, answer: Mapping[str, Any]) -> Iterator[Part]:
        yield ""
        yield "Vendor staff with multiple roles:"
        rows = ((one["name"], one["roles"]) for one in answer["vendor_with_two_roles"])
        yield Listing.of(("Name", "Roles"), rows, "Nobody.")


ACCESS_REVIEW = AccessReviewTable(
    {
        "Name": "name",
        "Roles": "roles",
        "May approve": "may_approve",
        "Through": lambda one: ", ".join(one["through"]),
        "Last sign-in": lambda one: moment(one["last_sign_in"]),
        "By": "signed_in_by",
    }
)
