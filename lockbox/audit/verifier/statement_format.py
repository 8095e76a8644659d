"""Format 2 of a signed approval: the members that it adds to format 1, their form, and what they must match; pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from lockbox.audit.verifier.move_checks import ACTIVE, SUBMISSION, begins

ACT_AS, AGENT, CALL, ARGUMENTS = "act_as", "agent", "call", "call_arguments"
APPROVE, BREAK_GLASS = "approve", "break_glass"
SHA256 = re.compile(r"[0-9a-f]{64}")
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ANY_TEXT = re.compile(r".+", re.DOTALL)
OF_AGENT = {"id": UUID_TEXT, "name": ANY_TEXT, "owner": UUID_TEXT, "processor": ANY_TEXT}
OF_CALL = {"service": ANY_TEXT, "tool": ANY_TEXT, "tool_sha256": SHA256, "commitment": SHA256}
LONGEST_TEXT = 4096
"""The longest text in `agent` or `call`, in bytes of UTF-8."""


def added(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The members of a move that format 2 adds; without these members, an approval has format 1."""
    return {name: fields[name] for name in (ACT_AS, AGENT, CALL) if name in fields}


def malformed(fields: Mapping[str, Any]) -> Iterator[str]:
    if ACT_AS in fields and not _is_text(fields[ACT_AS], SHA256):
        yield ACT_AS
    for name, form in ((AGENT, OF_AGENT), (CALL, OF_CALL)):
        if name in fields and not _is_object(fields[name], form):
            yield name


def _is_object(value: object, form: Mapping[str, re.Pattern[str]]) -> bool:
    return isinstance(value, dict) and value.keys() == form.keys() and all(_is_text(value[x], form[x]) for x in form)


def _is_text(value: object, form: re.Pattern[str]) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None and len(value.encode()) <= LONGEST_TEXT


def contradiction(fields: Mapping[str, Any], asked: Mapping[str, Any] | None) -> str | None:
    """`asked` are the members of format 2 in the request's first move, None if the file lacks that move."""
    mine = added(fields)
    opens = fields["to_state"] == ACTIVE
    if asked is not None and (opens or fields["action"] == APPROVE) and mine != asked:
        return "this is for another user, program or call than was asked for"
    if asked is not None and begins(fields) and (how := _of_beginning(fields)):
        return how
    return _of_opening(fields, mine) if opens else None


def _of_beginning(fields: Mapping[str, Any]) -> str | None:
    submitted, call = fields.get(SUBMISSION, fields), fields.get(CALL, {})
    if fields["personal"].get(ACT_AS) != fields.get(ACT_AS):
        return "the user to act as is not the one that the event commits to"
    if fields["personal"].get(ARGUMENTS) != call.get("commitment"):
        return "the call's arguments are not those that the event commits to"
    if call and submitted.get("service") != call["service"]:
        return "the call is of another service than the request"
    return None


def _of_opening(fields: Mapping[str, Any], mine: Mapping[str, Any]) -> str | None:
    uses = fields.get("max_uses")
    if CALL in mine and not (type(uses) is int and uses == 1):
        return "this opens a window for one call, and not for one use"
    if ACT_AS in mine and fields["action"] != APPROVE:
        return "this opens a window to act as a user, and no approver's approval does"
    if mine and fields["action"] == BREAK_GLASS:
        return "break-glass opens a window for a program or a call"
    return None
