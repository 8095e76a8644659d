"""Sends the cases that Schemathesis generates as each role, and checks each answer: Schemathesis loads this.

Generating a case takes far longer than sending it. A role that the operation lets in sends each valid case first.
Then all other roles send the cases of examples, fuzzing and links; each bound of the schema is sent by one other role
in turn. Invalid input is refused before a role matters, so its cases are spread over the roles.
"""

import json
import os
import sys
from collections import Counter, defaultdict
from typing import Any

import schemathesis

TOKENS: dict[str, str] = json.loads(os.environ["CONTRACT_TOKENS"])
"""The token by each role; it is empty for callers who send none."""
FIRST = "tenant_admin"
AUTHORIZATION = "Authorization"
OF_EACH_ANSWER = frozenset(
    {
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "positive_data_acceptance",
        "missing_required_header",
        "unsupported_method",
        "allow_header_conformance",
        "ignored_auth",
    }
)
"""The other checks compare answers to the role that sends a case first."""
ABLE: dict[str, str] = {}
"""The first role that each operation has let in."""
ASKED: dict[str, Counter[str]] = defaultdict(Counter)
LET_IN: dict[str, set[str]] = {role: set() for role in TOKENS}


def role_of(response: Any) -> str | None:
    """Return the role whose token a call had, or None for any other token."""
    token = response.request.headers.get(AUTHORIZATION, "").removeprefix("Bearer ")
    return next((role for role in TOKENS if TOKENS[role] == token), None)


def is_invalid(case: Any) -> bool:
    return case.meta is not None and case.meta.generation.mode.is_negative


def least_asked(label: str, *excluded: str) -> str:
    """Return the role that has sent the fewest cases of an operation."""
    return min((role for role in TOKENS if role not in excluded), key=lambda role: ASKED[label][role])


def able(label: str) -> str:
    return ABLE.get(label, FIRST)


@schemathesis.auth(refresh_interval=None)
class FirstSender:
    """Chooses the token with which a case is sent first."""

    def get(self, case: Any, _: Any) -> str:
        label = case.operation.label
        return TOKENS[least_asked(label) if is_invalid(case) else able(label)]

    def set(self, case: Any, data: str, _: Any) -> None:
        if data:
            case.headers[AUTHORIZATION] = f"Bearer {data}"


@schemathesis.check
class EveryRoleIsAnsweredByTheDocument:
    """Sends a valid case as other roles too, and fails at the end if a role has not called an operation."""

    def after_response(self, ctx: Any, response: Any, case: Any) -> None:
        """Send a case as other roles, unless it was meant to be sent with an invalid token."""
        label, role = case.operation.label, role_of(response)
        if role is None:
            return
        _note(label, role, response)
        checks = [check for check in ctx.internals.checks if check.__name__ in OF_EACH_ANSWER]
        for other in _others(case, role):
            sent = case.derive(headers=case.headers.copy(), keep_auth=bool(TOKENS[other]))
            sent.headers.pop(AUTHORIZATION, None)
            own = {AUTHORIZATION: f"Bearer {TOKENS[other]}"} if TOKENS[other] else {}
            options = dict(ctx.internals.transport_kwargs or {})
            options["headers"] = {**(options.get("headers") or {}), **own}
            answer = sent.call(**options)
            _note(label, other, answer)
            sent.validate_response(answer, checks, headers=options["headers"], transport_kwargs=options)

    def after_run(self, _: Any) -> None:
        """Fail if a role has not called an operation, and print how many operations let each role in."""
        counts = {role: len(labels) for role, labels in LET_IN.items()}
        sys.stdout.write(f"Let in of {len(ASKED)}: {json.dumps(counts)}\n")
        assert [(label, role) for label, asked in ASKED.items() for role in TOKENS if not asked[role]] == []


def _others(case: Any, role: str) -> list[str]:
    if is_invalid(case):
        return []
    if case.meta is not None and case.meta.phase.name == "coverage":
        return [least_asked(case.operation.label, role)]
    return [other for other in TOKENS if other != role]


def _note(label: str, role: str, response: Any) -> None:
    ASKED[label][role] += 1
    if 200 <= response.status_code < 300:
        LET_IN[role].add(label)
        ABLE.setdefault(label, role)
