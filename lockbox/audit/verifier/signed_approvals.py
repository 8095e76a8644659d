"""Check which approvals the approvers' own passkeys signed, and which only the vendor's server attests; pure."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from lockbox.audit.canonical import canonical
from lockbox.audit.verifier import passkey_assertion, statement_format
from lockbox.audit.verifier.approval_checks import (
    CONTEXT,
    KEPT_START,
    KEPT_USES,
    NOT_BEFORE,
    OPENS_AT,
    SUBMISSION,
    USES,
    ApprovalBounds,
)
from lockbox.audit.verifier.approver_keys import ApproverKeys, by_person, grouped
from lockbox.audit.verifier.export_format import FindingKind, Findings
from lockbox.audit.verifier.move_checks import OPEN, begins
from lockbox.audit.verifier.passkey_assertion import FORMAT, FORMAT_2, SIGNED, Assertion, BadAssertion
from lockbox.audit.verifier.pre_approval_checks import PRE_APPROVAL

APPROVE, ENDORSE, ACTIVE, ENFORCE = "approve", "endorse", "active", "enforce"
BREAK_GLASS = "break_glass"
LASTS = timedelta(minutes=10)
"""How long an approver may take to sign."""
LOOSE = frozenset({"observe", "off"})
"""The modes in which the vendor's review is enough."""
OF_REQUEST = ("service", "mode")
ASKED = frozenset({*OF_REQUEST, "actions", "access_window"})
"""Members of a request's first move in a log, or of the submission that this move copies."""
MEMBERS = frozenset({"content", "issued_at", "service", "mode", "engineer", "actions", "access_window"})
"""Members of a signed statement that the approval's event does not have."""
CONTENT, COMMENT, KEPT = "signed_content", "comment", "kept_resources"


class Mismatch(Exception):  # noqa: N818 - it names what was found
    pass


@dataclass(frozen=True)
class Approvers:
    """`is_required` is whether each approval must be signed."""

    files: tuple[ApproverKeys, ...] = ()
    is_required: bool = False


NO_APPROVERS = Approvers()


class PasskeyApprovalChecker:
    """Check passkey signatures against the moves of requests, and against the customer's keys.

    `verify.VerificationResult` explains the counts. If each approval must be signed, everything counted in
    `attested`, `alone` and `by_break_glass` is a finding.
    """

    def __init__(self, tenant: str | None, approvers: Approvers, findings: Findings) -> None:
        self.signed = 0
        self.unchecked = 0
        self.hidden = 0
        self.alone = 0
        self.by_break_glass = 0
        self.attested: Counter[str] = Counter()
        self._has_keys = bool(approvers.files)
        self._keys = by_person(approvers.files, tenant)
        self._findings = findings
        self._is_required = approvers.is_required
        self._asked: dict[str, dict[str, Any]] = {}
        self._approved: dict[str, dict[str, ApprovalBounds | None]] = {}

    def take(
        self, fields: Mapping[str, Any], shown: Mapping[str, str], where: Mapping[str, Any], *, is_all_there: bool
    ) -> None:
        request = fields["request_id"]
        submitted = fields.get(SUBMISSION, fields)
        if begins(fields) and isinstance(submitted, Mapping) and submitted.keys() >= ASKED:
            engineer = submitted.get("engineer") if SUBMISSION in fields else _engineer(fields)
            self._asked[request] = _asked(submitted, engineer, fields, shown)
        if request in self._asked and fields["action"] == ENDORSE and fields.get("mode") == ENFORCE:
            self._asked[request]["mode"] = ENFORCE
        if fields["action"] == APPROVE:
            self._take_approval(fields, shown, where, is_all_there=is_all_there)
        if fields["to_state"] == ACTIVE:
            self._take_opening(fields, shown, where, is_all_there=is_all_there)
        if fields["to_state"] not in OPEN:
            self._asked.pop(request, None)
            self._approved.pop(request, None)

    def finish(self) -> None:
        if self._is_required and self.unchecked:
            message = f"not checked without your approvers' keys: {self.unchecked} of the signatures by passkeys"
            self._findings.add(FindingKind.UNPROVEN, message)

    def _take_approval(
        self, fields: Mapping[str, Any], shown: Mapping[str, str], where: Mapping[str, Any], *, is_all_there: bool
    ) -> None:
        request, asked = fields["request_id"], self._asked.get(fields["request_id"])
        said = ApprovalBounds.approved(fields, shown, asked) if asked else None
        self._approved.setdefault(request, {})[str(fields.get("actor_id"))] = said
        if "assertion" in fields or "decision" in fields:
            try:
                if asked is None and is_all_there:
                    raise Mismatch("the log does not say what was asked for")  # noqa: TRY301 - handled like any mismatch
                self._check(fields, shown)
            except (Mismatch, BadAssertion) as wrong:
                self._findings.add(FindingKind.PASSKEY, f"the approval's signature by passkey: {wrong}", **where)
        elif SIGNED in (fields.get("approve_means"), fields.get("proof")):
            message = "this approval must be signed with a passkey, and is not"
            self._findings.add(FindingKind.PASSKEY, message, **where)
        else:
            self.attested[shown.get("name") or str(fields.get("actor_id"))] += 1
            if self._is_required:
                message = "only the vendor's server attests this approval: no passkey signed it"
                self._findings.add(FindingKind.PASSKEY, message, **where)

    def _check(self, fields: Mapping[str, Any], shown: Mapping[str, str]) -> None:
        statement = fields.get("decision")
        if type(statement) is not str:
            raise Mismatch("there is no statement that it is over")
        said = _said(statement)
        _check_said(said, fields, self._asked.get(fields["request_id"]))
        _check_content(said, fields, shown, self._asked.get(fields["request_id"]))
        assertion = Assertion.read(fields.get("assertion"))
        if not self._has_keys:
            self.unchecked += 1
            return
        found = self._keys.get((str(fields.get("actor_id")), assertion.key))
        if found is None:
            print_ = grouped(assertion.key)
            raise Mismatch(f"the key {print_} is none of this approver's in the files of keys that you gave")
        file, key = found
        passkey_assertion.check(assertion, statement.encode(), key.public_key, rp_id=file.rp_id, origin=file.origin)
        self.signed += 1
        self.hidden += CONTENT not in shown

    def _take_opening(
        self, fields: Mapping[str, Any], shown: Mapping[str, str], where: Mapping[str, Any], *, is_all_there: bool
    ) -> None:
        """For each person counted as an approver, the log must have an approval that covers the window."""
        request = fields["request_id"]
        asked, approved = self._asked.get(request), self._approved.get(request, {})
        if asked and _is_loose(asked["mode"]) and fields["action"] == ENDORSE:
            self._take_alone(where)
            return
        if fields["action"] == BREAK_GLASS:
            self._take_break_glass(where)
            return
        if PRE_APPROVAL in fields and fields["action"] != APPROVE:
            self._take_pre_approved(where)
            return
        counted = fields.get("approved_by")
        people = {str(one) for one in counted} if isinstance(counted, list) else set()
        if asked is None and is_all_there and (self._has_keys or self._is_required):
            self._findings.add(FindingKind.PASSKEY, "this opens a window, but the log lacks the submission", **where)
        elif fields["action"] != APPROVE or not people:
            self._findings.add(
                FindingKind.PASSKEY, "this opens a window that no approver of the customer approved", **where
            )
        elif (missing := people - approved.keys()) and is_all_there:
            message = f"this counts an approval of {', '.join(sorted(missing))}, and the log has none of theirs"
            self._findings.add(FindingKind.PASSKEY, message, **where)
        for person in sorted(people & approved.keys()):
            said = approved[person]
            if asked and said and (how := ApprovalBounds.opened(fields, shown, asked).beyond(said)):
                message = f"this opens a window {how} than {person} approved"
                self._findings.add(FindingKind.PASSKEY, message, **where)

    def _take_pre_approved(self, where: Mapping[str, Any]) -> None:
        if self._is_required:
            message = (
                "a pre-approval opened this window, which only the vendor's server attests: no passkey signed it"
            )
            self._findings.add(FindingKind.PASSKEY, message, **where)

    def _take_alone(self, where: Mapping[str, Any]) -> None:
        self.alone += 1
        if self._is_required:
            message = (
                "the vendor opened this window without the customer, in another mode than enforce: "
                "no passkey signed it"
            )
            self._findings.add(FindingKind.PASSKEY, message, **where)

    def _take_break_glass(self, where: Mapping[str, Any]) -> None:
        self.by_break_glass += 1
        if self._is_required:
            message = "two people of the vendor opened this window by break-glass: no passkey of yours signed it"
            self._findings.add(FindingKind.PASSKEY, message, **where)


def _is_loose(mode: object) -> bool:
    return isinstance(mode, str) and mode in LOOSE


def _engineer(fields: Mapping[str, Any]) -> object:
    return fields.get("on_behalf_of") or fields.get("actor_id")


def _asked(
    submitted: Mapping[str, Any], engineer: object, fields: Mapping[str, Any], shown: Mapping[str, str]
) -> dict[str, Any]:
    facts = {name: submitted[name] for name in ASKED} | {name: submitted.get(name) for name in (USES, NOT_BEFORE)}
    resources = _read(shown["resources"]) if "resources" in shown else None
    is_context_hidden = CONTEXT in fields["personal"] and CONTEXT not in shown
    of_context = {CONTEXT: shown.get(CONTEXT), "is_context_hidden": is_context_hidden}
    return facts | {"engineer": engineer, "resources": resources} | of_context


def _said(statement: str) -> dict[str, Any]:
    said = _read(statement)
    try:
        if isinstance(said, dict) and canonical(said) == statement.encode():
            return said
    except (TypeError, ValueError):
        pass
    raise Mismatch("the statement is not in the canonical form of RFC 8785")


def _check_said(said: Mapping[str, Any], fields: Mapping[str, Any], asked: Mapping[str, Any] | None) -> None:
    added = statement_format.added(fields)
    wanted = FORMAT_2 if added else FORMAT
    if said.get("format") != wanted:
        raise Mismatch(f"the statement has another format than {wanted}: {said.get('format')}")
    expected = {
        "format": wanted,
        **added,
        "action": APPROVE,
        "request_id": fields["request_id"],
        "tenant_id": fields.get("tenant_id"),
        "version": fields["seq"] - 1,
        "approver": fields.get("actor_id"),
        "principals": fields.get("principals", []),
        "policy_version": fields.get("policy_version"),
    }
    if KEPT_USES in fields:
        expected[USES] = fields[KEPT_USES]
    if KEPT_START in fields:
        expected[OPENS_AT] = fields[KEPT_START]
    if asked is not None:
        expected |= {name: asked[name] for name in (*OF_REQUEST, "engineer")}
        expected["actions"] = fields.get("kept_actions", asked["actions"])
        expected["access_window"] = fields.get("access_window", asked["access_window"])
    if said.keys() != expected.keys() | MEMBERS:
        raise Mismatch("the statement is malformed")
    for name, value in expected.items():
        if said[name] != value or type(said[name]) is not type(value):
            raise Mismatch(f"the statement has another {name} than the log")
    if not _is_in_time(said["issued_at"], fields.get("at")):
        raise Mismatch("it was requested at another time than the approval")


def _check_content(
    said: Mapping[str, Any], fields: Mapping[str, Any], shown: Mapping[str, str], asked: Mapping[str, Any] | None
) -> None:
    if CONTENT not in fields["personal"]:
        raise Mismatch("the event has no resources that were signed")
    if CONTENT not in shown:
        return
    content = _read(shown[CONTENT])
    if hashlib.sha256(shown[CONTENT].encode()).hexdigest() != said["content"] or not isinstance(content, dict):
        raise Mismatch("the comment and the resources are not those of the statement")
    is_comment_shown = COMMENT in shown or COMMENT not in fields["personal"]
    if is_comment_shown and content.get("comment") != shown.get(COMMENT):
        raise Mismatch("another comment was signed")
    if KEPT in fields["personal"]:
        kept = _read(shown[KEPT]) if KEPT in shown else None
    else:
        kept = asked["resources"] if asked else None
    if kept is not None and content.get("resources") != kept:
        raise Mismatch("other resources were signed")
    if asked and not asked["is_context_hidden"] and content.get(CONTEXT) != asked[CONTEXT]:
        raise Mismatch("another context was signed")


def _is_in_time(issued_at: object, at: object) -> bool:
    try:
        asked, decided = (datetime.fromisoformat(str(one)) for one in (issued_at, at))
        return timedelta(0) <= decided - asked <= LASTS
    except (TypeError, ValueError):
        return False


def _read(text: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
