"""Rules on the API's input that JSON Schema cannot express: Schemathesis loads this, and accepts such refusals."""

import json
import re
from typing import Any

import schemathesis
from schemathesis.core.failures import Failure
from schemathesis.openapi.checks import EnsureResourceAvailability

from tests.far.contract_roles import able, role_of

RULES = (
    r"composed form \(NFC\)",
    r"leave out the character U\+(?:[EF]...|F....|10....) ?",
    r"choose a moment that a calendar holds",
    r"leave out web and mail addresses",
    r"there is no group",
    r"the group .* (?:is empty|cannot give)",
    r"name each only once",
    r"use at most \d+ stars in a pattern",
)
"""Rules that no pattern can express, by what callers are told; private-use characters are too many for one."""
BEYOND_SCHEMA = re.compile("|".join(RULES))
OF_REFUSALS = frozenset({"AcceptedNegativeData", "MissingHeaderNotRejected", "RejectedPositiveData"})
REFUSED_EARLY = frozenset({412, 413, 428})
"""Refusals that Schemathesis does not take for such: of a version that is not there by now, unread, or not named."""
OF_THE_FORM = "invalid-request"


@schemathesis.hook
def filter_failure(_: Any, failure: Failure, case: Any, response: Any) -> bool:
    """Keep a failure, unless a rule that the answer names refused well-formed input.

    A refusal of the input's form must be foreseeable from the OpenAPI document; a refusal by rules of a tenant, of
    people or of time need not be.
    """
    if isinstance(failure, EnsureResourceAvailability):
        # The id of an invitation is no member's yet, though both are made and changed below `members`; and what one
        # role has made need not be there for another.
        return "/members/" not in case.path and role_of(response) == able(failure.created_with)
    if type(failure).__name__ in OF_REFUSALS and response.status_code in REFUSED_EARLY:
        return False
    if type(failure).__name__ != "RejectedPositiveData" or response.status_code != 422:
        return True
    told = json.loads(response.content)
    if told["code"] != OF_THE_FORM:
        return False
    # What is wrong with the form is told field by field; what a rule refuses is told in one sentence.
    return not all(BEYOND_SCHEMA.search(error["message"]) for error in told.get("errors", ()))
