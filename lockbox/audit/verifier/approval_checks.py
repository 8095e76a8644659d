"""Check that an approval's signature matches the events of its request; pure."""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, TypeGuard

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from lockbox.audit.canonical import SIGNED_FORMAT_2, canonical, decoded, signed_text
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier import statement_format
from lockbox.audit.verifier.export_format import FindingKind, Findings
from lockbox.audit.verifier.move_checks import OPEN, begins
from lockbox.audit.verifier.pre_approval_checks import PRE_APPROVAL

NEVER = "\uffff"
KEPT, GRANTED = "kept_resources", "granted_resources"
ASKED_RESOURCES, ACTIONS, WINDOW = "resources", "actions", "access_window"
USES, KEPT_USES = "max_uses", "kept_max_uses"
NOT_BEFORE, OPENS_AT, KEPT_START, EXTENDS = "not_before", "opens_at", "kept_opens_at", "extends"
CONTEXT = "context"
NAME = "lockbox/approvals"
APPROVAL_FORMAT, APPROVAL_FORMAT_2 = "lockbox approval 1", "lockbox approval 2"
SUBMIT, SUBMISSION, RESOURCES = "submit", "submission", "resources"
ACTIVE = "active"
APPROVE, ENDORSE, BREAK_GLASS = "approve", "endorse", "break_glass"
CUSTOMER = "customer"
LONGEST_BREAK_GLASS = 3600
LOOSER = {"enforce": frozenset({"observe", "off"}), "observe": frozenset({"off"})}
"""For each mode that an endorsement can set, the less strict modes that the submission may have."""
OF_SUBMIT = ("service", "actions", "mode", "policy_version")
GRANTED_RESOURCES, GRANTED_ACTIONS = "granted_resources", "granted_actions"


@dataclass(frozen=True)
class ApprovalBounds:
    """Duration in seconds, scope and uses of an approval or an open window, as far as the file shows them.

    `uses` is None for any number of uses. `start` is the earliest beginning, None for at once. `is_part` is whether
    the resources are fewer than asked; this stays known after the resources are erased.
    """

    seconds: float | None
    actions: frozenset[str] | None
    resources: frozenset[str] | None
    is_part: bool
    uses: int | None
    start: str | None

    @classmethod
    def approved(cls, fields: Mapping[str, Any], shown: Mapping[str, str], asked: Mapping[str, Any]) -> Self:
        window = fields.get(WINDOW, asked[WINDOW])
        return cls(
            window if type(window) is int else None,
            _set(fields.get("kept_actions", asked[ACTIONS])),
            _resources(KEPT, fields, shown, asked),
            KEPT in fields["personal"],
            _uses(fields.get(KEPT_USES, asked[USES]), malformed=0),
            _start(fields.get(KEPT_START, asked[NOT_BEFORE]), malformed=NEVER),
        )

    @classmethod
    def opened(cls, fields: Mapping[str, Any], shown: Mapping[str, str], asked: Mapping[str, Any]) -> Self:
        return cls(
            _seconds(fields.get(OPENS_AT, fields.get("at")), fields.get("deadline_at")),
            _set(fields.get("granted_actions", asked[ACTIONS])),
            _resources(GRANTED, fields, shown, asked),
            GRANTED in fields["personal"],
            _uses(fields.get(USES), malformed=sys.maxsize),
            _start(fields.get(OPENS_AT, fields.get("at")), malformed=None),
        )

    def beyond(self, approved: Self) -> str | None:
        if self.seconds is None or approved.seconds is None or self.seconds > approved.seconds:
            return "for longer"
        if self.actions is None or approved.actions is None or not self.actions <= approved.actions:
            return "for other actions"
        both = self.resources is not None and approved.resources is not None
        if (both and not self.resources <= approved.resources) or (approved.is_part and not self.is_part):  # type: ignore[operator]
            return "for other resources"
        if approved.uses is not None and (self.uses is None or self.uses > approved.uses):
            return "for more uses"
        if approved.start is not None and (self.start is None or self.start < approved.start):
            return "that begins earlier"
        return None


def _seconds(start: object, end: object) -> float | None:
    try:
        return (datetime.fromisoformat(str(end)) - datetime.fromisoformat(str(start))).total_seconds()
    except (TypeError, ValueError):
        return None


def _uses(value: object, *, malformed: int) -> int | None:
    return value if value is None or type(value) is int else malformed


def _start(value: object, *, malformed: str | None) -> str | None:
    # All times of a log are in UTC and have the same number of digits, so their texts sort like the times.
    return value if value is None or type(value) is str else malformed


def _set(value: object) -> frozenset[str] | None:
    return frozenset(value) if isinstance(value, list) and all(type(one) is str for one in value) else None


def _resources(
    name: str, fields: Mapping[str, Any], shown: Mapping[str, str], asked: Mapping[str, Any]
) -> frozenset[str] | None:
    if name not in fields["personal"]:
        return _set(asked[ASKED_RESOURCES])
    try:
        return _set(json.loads(shown[name])) if name in shown else None
    except (ValueError, RecursionError):
        return frozenset()


@dataclass(frozen=True)
class ApprovalSignature:
    """An event's signed approval; `statement` is a SHA-256, `format` is None if the event names none."""

    by: list[str]
    statement: str
    signature: str
    key: str
    format: str | None


class ApprovalChecker:
    """Memory is bounded by the requests open at one time.

    `checked` counts valid approvals. `by_hash` counts approvals whose content the file does not show: only the
    statement's hash was checked. `unchecked` counts approvals without an approval key.
    """

    def __init__(self, keys: Iterable[VerifierKey], findings: Findings) -> None:
        self.checked = 0
        self.by_hash = 0
        self.unchecked = 0
        self._findings = findings
        self._keys = {key.id.hex(): Ed25519PublicKey.from_public_bytes(key.public) for key in keys}
        self._asked: dict[str, dict[str, Any]] = {}
        self._added: dict[str, dict[str, Any]] = {}

    def judge_event(self, fields: Mapping[str, Any], where: Mapping[str, Any]) -> None:
        """Report approvals by anyone but the customer, and signed approvals in events that are not moves."""
        if fields["action"] == APPROVE and fields.get("side") != CUSTOMER:
            message = "this approval is not of the customer's side: nobody else approves"
            self._findings.add(FindingKind.APPROVAL, message, **where)
        if fields["seq"] is None and "approval" in fields:
            message = "this event has a signed approval, but only a move can open a window"
            self._findings.add(FindingKind.APPROVAL, message, **where)

    def take(self, fields: Mapping[str, Any], shown: Mapping[str, str], where: Mapping[str, Any]) -> None:
        request = fields["request_id"]
        if begins(fields):
            self._added[request] = statement_format.added(fields)
        if how := statement_format.contradiction(fields, self._added.get(request)):
            self._findings.add(FindingKind.APPROVAL, how, **where)
        if (asked := _asked(fields, shown)) and fields["to_state"] in OPEN:
            self._asked[request] = asked
        if fields["action"] == ENDORSE and "mode" in fields and request in self._asked:
            self._get_stricter(request, fields["mode"], where)
        if fields["to_state"] == ACTIVE and (how := _wrong_break_glass(fields, self._asked.get(request))):
            self._findings.add(FindingKind.APPROVAL, f"this opens a window by break-glass {how}", **where)
        if "approval" in fields:
            self._check(fields, shown, where)
        elif fields["to_state"] == ACTIVE:
            self._findings.add(FindingKind.APPROVAL, "this opens a window without a signed approval", **where)
        if fields["to_state"] not in OPEN:
            self._asked.pop(request, None)
            self._added.pop(request, None)

    def _get_stricter(self, request: str, mode: object, where: Mapping[str, Any]) -> None:
        before = self._asked[request]["mode"]
        if isinstance(mode, str) and isinstance(before, str) and before in LOOSER.get(mode, ()):
            self._asked[request]["mode"] = mode
        else:
            message = "the endorsed request goes on in another mode, which is no stricter one"
            self._findings.add(FindingKind.APPROVAL, message, **where)

    def _check(self, fields: Mapping[str, Any], shown: Mapping[str, str], where: Mapping[str, Any]) -> None:
        signed = _signed(fields)
        if signed is None:
            self._findings.add(FindingKind.APPROVAL, "the approval is malformed", **where)
            return
        expected = SIGNED_FORMAT_2 if statement_format.added(fields) else None
        if signed.format != expected:
            message = f"the approval names another format than {expected or 'none'}: {signed.format or 'none'}"
            self._findings.add(FindingKind.APPROVAL, message, **where)
            return
        asked = self._asked.get(fields["request_id"])
        is_shown = asked is not None and not _is_hidden(fields, shown)
        if is_shown and _hash_of(fields, shown, asked or {}, signed.by) != signed.statement:
            message = "the approval does not match the request's events"
            self._findings.add(FindingKind.APPROVAL, message, **where)
        elif not self._keys:
            self.unchecked += 1
        elif signed.key not in self._keys:
            message = f"the approval is signed by {NAME}+{signed.key}, which you do not trust"
            self._findings.add(FindingKind.UNKNOWN_KEY, message, **where)
        elif not self._is_signed(fields, signed):
            self._findings.add(FindingKind.WRONG_SIGNATURE, "the signature of the approval is wrong", **where)
        else:
            self.checked += 1
            self.by_hash += not is_shown

    def _is_signed(self, fields: Mapping[str, Any], signed: ApprovalSignature) -> bool:
        window = (fields[name] for name in ("request_id", "tenant_id", "at", "deadline_at"))
        try:
            opens_at = fields.get(OPENS_AT)
            added = statement_format.added(fields)
            text = signed_text(*window, by=signed.by, statement=signed.statement, opens_at=opens_at, added=added)
            self._keys[signed.key].verify(decoded(signed.signature), text)
        except (InvalidSignature, KeyError, TypeError, ValueError, RecursionError):
            return False
        return True


def _wrong_break_glass(fields: Mapping[str, Any], asked: Mapping[str, Any] | None) -> str | None:
    """Break-glass needs two people, and its window lasts at most an hour."""
    if (fields["action"] == BREAK_GLASS) is not (fields.get(BREAK_GLASS) is True):
        return "and does not say so, or says so and is none"
    if fields["action"] != BREAK_GLASS:
        return None
    if fields.get("approved_by") != [fields.get("actor_id")]:
        return "by another than who signed for it"
    if asked and fields.get("actor_id") == asked["engineer"]:
        return "by the requester alone"
    seconds = _seconds(fields.get("at"), fields.get("deadline_at"))
    return None if seconds is not None and seconds <= LONGEST_BREAK_GLASS else "for longer than an hour"


def _asked(fields: Mapping[str, Any], shown: Mapping[str, str]) -> dict[str, Any] | None:
    submission = fields.get(SUBMISSION)
    is_first = (fields["action"] == SUBMIT and fields["seq"] == 1) or isinstance(submission, Mapping)
    is_hidden = CONTEXT in fields.get("personal", ()) and CONTEXT not in shown
    if RESOURCES not in shown or is_hidden or not is_first:
        return None
    if isinstance(submission, Mapping):
        said, engineer = submission, submission.get("engineer")
    else:
        said, engineer = fields, fields.get("on_behalf_of") or fields.get("actor_id")
    asked = {name: said.get(name) for name in OF_SUBMIT} | {name: said[name] for name in (EXTENDS,) if name in said}
    of_context = {CONTEXT: shown[CONTEXT]} if CONTEXT in shown else {}
    return {"engineer": engineer, RESOURCES: _read(shown[RESOURCES]), **asked, **of_context}


def _read(resources: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(resources)
    except (ValueError, RecursionError):
        return None


def _is_hidden(fields: Mapping[str, Any], shown: Mapping[str, str]) -> bool:
    return GRANTED_RESOURCES in fields.get("personal", ()) and GRANTED_RESOURCES not in shown


def _hash_of(fields: Mapping[str, Any], shown: Mapping[str, str], asked: dict[str, Any], by: list[str]) -> str | None:
    granted = _granted(fields, shown, asked)
    said = None if granted is None else _statement(fields, granted, by)
    return None if said is None else hashlib.sha256(said).hexdigest()


def _granted(fields: Mapping[str, Any], shown: Mapping[str, str], asked: dict[str, Any]) -> dict[str, Any] | None:
    opened = dict(asked)
    if GRANTED_RESOURCES in shown:
        opened["resources"] = _read(shown[GRANTED_RESOURCES])
    if GRANTED_ACTIONS in fields:
        opened["actions"] = fields[GRANTED_ACTIONS]
    return opened if all(_is_part(opened[name], asked[name]) for name in ("resources", "actions")) else None


def _is_part(some: object, whole: object) -> bool:
    return some == whole or (_is_text(some) and _is_text(whole) and bool(some) and set(some) <= set(whole))


def _is_text(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(type(one) is str for one in value)


def _signed(fields: Mapping[str, Any]) -> ApprovalSignature | None:
    match fields:
        case {
            "approved_by": list(by),
            "approval": {"statement": str(said), "signature": str(signature), "key": str(key), **rest},
        } if all(type(one) is str for one in (*by, rest.get("format", ""))):
            return ApprovalSignature(by, said, signature, key, str(rest["format"]) if "format" in rest else None)
    return None


def _statement(fields: Mapping[str, Any], asked: Mapping[str, Any], by: list[str]) -> bytes | None:
    added = statement_format.added(fields)
    said = {
        "format": APPROVAL_FORMAT_2 if added else APPROVAL_FORMAT,
        "request_id": fields["request_id"],
        "tenant_id": fields.get("tenant_id"),
        "opened_at": fields.get("at"),
        "until": fields.get("deadline_at"),
        "by": sorted(by),
        **{name: fields[name] for name in (USES, OPENS_AT, BREAK_GLASS, PRE_APPROVAL) if name in fields},
        **added,
        **asked,
    }
    try:
        return canonical(said)
    except (TypeError, ValueError, RecursionError):
        return None
