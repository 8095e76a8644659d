"""Check each event's form, personal values, log, moves and approvals; pure."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NoReturn
from uuid import UUID

from lockbox.audit.canonical import commitment, decoded, instant
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier import statement_format
from lockbox.audit.verifier.approval_checks import SUBMISSION, ApprovalChecker
from lockbox.audit.verifier.definition_checks import DefinitionChecker
from lockbox.audit.verifier.export_format import EventLine, FindingKind, Findings, PersonalDetail
from lockbox.audit.verifier.move_checks import MoveChecker, MoveSequencer, StopChecker, UseChecker, begins
from lockbox.audit.verifier.pre_approval_checks import PRE_APPROVAL, PreApprovalChecker
from lockbox.audit.verifier.signed_approvals import NO_APPROVERS, Approvers, PasskeyApprovalChecker
from lockbox.audit.verifier.stated_access_checks import StatedAccessChecker

SERVICE, RESOURCES = "service", "resources"
ASKING = ("submit", "endorse", "break_glass")
"""The moves that may be the first to ask or notify the customer. These moves contain the submission."""
MEMBERS = ("id", "tenant_id", "request_id", "seq", "at", "action", "actor_id", "actor_role", "from_state", "to_state")
"""Members of the body that are also columns of the event's row, for searching."""
IDS = frozenset({"id", "tenant_id", "request_id", "actor_id"})
NEEDED = frozenset({"id", "at", "action", "actor_role"})
LARGEST_INTEGER = 2**53 - 1
HIGHEST_OF_BMP = "\uffff"
SCALARS = frozenset({str, int, bool, type(None)})
INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{6}Z", re.ASCII)
AUDIT_EVENTS_REMOVED = "audit_events_removed"
RESTORED = "restored"
RECORDS: Mapping[str, Mapping[str, type]] = {
    AUDIT_EVENTS_REMOVED: {"removed_from": int, "removed_to": int},
    RESTORED: {"log_id": str, "size": int, "shipped_origin": str, "shipped_size": int, "shipped_root": str},
}
"""Events about the log itself, with their required members; numbers in these members are not negative."""
OPTIONAL: Mapping[str, frozenset[type]] = {
    "actor_id": frozenset({str, type(None)}),
    SUBMISSION: frozenset({dict}),
    PRE_APPROVAL: frozenset({str}),
}
"""Optional members that the checks of windows depend on, with their allowed types."""
Taken = tuple[dict[str, Any], dict[str, str], dict[str, Any]]
"""A move: its body, its shown and valid personal values, and its place in the file."""
ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode
ENCODE_IN_ORDER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def parsed_body(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def compare_columns(
    body: bytes, columns: Mapping[str, Any], details: Mapping[str, tuple[str, str]]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the body's fields, and the names of the columns and values that contradict the body.

    The id always comes from the row; so do required fields that the body lacks.
    """
    found = parsed_body(body)
    other = [name for name in MEMBERS if found.get(name) != _written(columns[name])]
    members = dict(columns) | {name: _read(name, found.get(name), columns[name]) for name in other}
    return members, (*other, *_foreign(found, details))


def submitted(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the submission from a request's first move in a log; after a review, this move holds a copy."""
    asked = found.get(SUBMISSION)
    return asked if isinstance(asked, dict) else found


def item(body: bytes, details: Mapping[str, tuple[str, str]]) -> str | None:
    """Return the service of a request's first move, and its resources unless they were erased."""
    found = parsed_body(body)
    asked = submitted(found)
    if not isinstance(asked.get(SERVICE), str):
        return None
    is_there = RESOURCES in details and RESOURCES not in _foreign(found, details)
    named = json.loads(details[RESOURCES][1]) if is_there else []
    return f"{asked[SERVICE]} {', '.join(map(str, named))}".strip()


def _foreign(found: Mapping[str, Any], details: Mapping[str, tuple[str, str]]) -> Iterable[str]:
    committed = found.get("personal")
    commitments = committed if isinstance(committed, dict) else {}
    return [name for name, (salt, value) in details.items() if commitments.get(name) != _commitment(salt, value)]


def _commitment(salt: str, value: str) -> str | None:
    try:
        return commitment(decoded(salt), value)
    except ValueError:
        return None


def _written(value: object) -> object:
    if isinstance(value, UUID):
        return str(value)
    return instant(value) if isinstance(value, datetime) else value


def _read(name: str, value: object, column: object) -> object:
    parsed: object = None
    try:
        if name in IDS:
            parsed = UUID(value) if isinstance(value, str) else None
        elif name == "at":
            parsed = datetime.fromisoformat(value) if isinstance(value, str) else None
        else:
            parsed = value if isinstance(value, str) else None
    except ValueError:
        parsed = None
    return column if name == "id" or (name in NEEDED and parsed is None) else parsed


class NotCanonical(Exception):  # noqa: N818 - it names what was found
    """The body is not a JSON object in the canonical form of RFC 8785."""


def _refuse(_: str) -> NoReturn:
    raise NotCanonical


def _integer(text: str) -> int:
    value = int(text)
    if abs(value) > LARGEST_INTEGER:
        raise NotCanonical
    return value


DECODE = json.JSONDecoder(parse_float=_refuse, parse_int=_integer, parse_constant=_refuse).decode


def fields_of(body: bytes) -> dict[str, Any]:
    try:
        text = body.decode()
        fields = DECODE(text)
        # Names sort by code points here and by UTF-16 in the standard. Both orders agree unless a character is beyond
        # the first plane.
        is_within = body.isascii() or max(text) <= HIGHEST_OF_BMP
        written = ENCODE(fields) if is_within else ENCODE_IN_ORDER(_in_order(fields))
    except (ValueError, RecursionError):
        raise NotCanonical from None
    if not isinstance(fields, dict) or written != text:
        raise NotCanonical
    return fields


def _in_order(value: object) -> object:
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return {name: _in_order(value[name]) for name in names}
    return [_in_order(one) for one in value] if isinstance(value, list) else value


def _malformed(fields: Mapping[str, Any]) -> Iterator[str]:
    for name in ("id", "action", "log", "at"):
        if type(fields.get(name)) is not str:
            yield name
    if not INSTANT.fullmatch(str(fields.get("at"))):
        yield "at"
    seq = fields.get("seq")
    if "seq" not in fields or (seq is not None and (type(seq) is not int or seq < 1)):
        yield "seq"
    for name in ("request_id", "to_state"):
        value = fields.get(name)
        if type(value) is not str and (seq is not None or value is not None):
            yield name
    committed = fields.get("personal")
    if type(committed) is not dict or any(type(one) is not str for one in committed.values()):
        yield "personal"
    if "tenant_id" not in fields or type(fields["tenant_id"]) not in {str, type(None)}:
        yield "tenant_id"
    yield from (name for name, value in fields.items() if not _is_plain(value))
    yield from (name for name, kinds in OPTIONAL.items() if name in fields and type(fields[name]) not in kinds)
    if seq is not None:
        yield from statement_format.malformed(fields)
    yield from (name for name, kind in RECORDS.get(fields["action"], {}).items() if not _is(kind, fields.get(name)))


def _is(kind: type, value: object) -> bool:
    return type(value) is kind and not (isinstance(value, int) and value < 0)


def _is_plain(value: object) -> bool:
    members = value.values() if isinstance(value, dict) else [value]
    return all(
        type(member) in SCALARS or (type(member) is list and all(type(part) is str for part in member))
        for member in members
    )


def _compact(id_: str) -> bytes | str:
    try:
        return UUID(id_).bytes
    except ValueError:
        return id_


@dataclass(frozen=True)
class RestoreRecord:
    """An event's record of a restored back-up: the log continued from its first `size` events.

    `shipped` is the origin, size and root (base64) of the newest checkpoint that was shipped before the restore.
    """

    number: int
    at: str
    size: int
    shipped: tuple[str, int, str]


@dataclass
class EventChecker:
    """Checks the bodies of events whose hashes the caller has verified.

    `tenant` is None for the vendor's own log. `whole` is whether every move must be present. `removed` is how many of
    the log's first events the log records as removed. Memory grows by one id for each event.
    """

    tenant: str | None
    log: str
    whole: bool
    findings: Findings
    keys: Iterable[VerifierKey] = ()
    removed: int = 0
    restores: list[RestoreRecord] = field(default_factory=list)
    details: int = 0
    left_out: int = 0
    approvers: Approvers = NO_APPROVERS
    requests: MoveChecker = field(init=False)
    approved: ApprovalChecker = field(init=False)
    signed: PasskeyApprovalChecker = field(init=False)
    uses: UseChecker = field(init=False)
    stops: StopChecker = field(init=False)
    pre_approved: PreApprovalChecker = field(init=False)
    defined: DefinitionChecker = field(init=False)
    stated: StatedAccessChecker = field(init=False)
    _ids: set[bytes | str] = field(default_factory=set)
    _in_order: MoveSequencer[Taken] = field(default_factory=MoveSequencer)

    def __post_init__(self) -> None:
        self.requests = MoveChecker(self.findings)
        self.approved = ApprovalChecker(self.keys, self.findings)
        self.signed = PasskeyApprovalChecker(self.tenant, self.approvers, self.findings)
        self.uses, self.stops = UseChecker(self.findings), StopChecker(self.findings)
        self.pre_approved = PreApprovalChecker(self.findings)
        self.defined = DefinitionChecker(self.findings)
        self.stated = StatedAccessChecker(self.findings)

    def check(self, line: int, entry: EventLine) -> None:
        try:
            fields = fields_of(entry.body)
        except NotCanonical:
            message = "the body is not in the canonical form of RFC 8785"
            self.findings.add(FindingKind.NOT_CANONICAL, message, line=line, number=entry.number)
            return
        where: dict[str, Any] = {"line": line, "number": entry.number, "event": str(fields.get("id"))}
        if name := next(_malformed(fields), None):
            message = f"the body's {name} is missing or malformed"
            self.findings.add(FindingKind.MALFORMED, message, **where)
            return
        self._check_place(fields, where)
        shown = self._check_details(fields["personal"], entry.personal, where)
        if fields["action"] == AUDIT_EVENTS_REMOVED:
            self._note_removal(fields, entry.number)
        elif fields["action"] == RESTORED:
            self._note_restore(fields, entry.number)
        self.approved.judge_event(fields, where)
        self.uses.take(fields, where)
        self.stops.take(fields, where)
        self.pre_approved.take(fields, shown, where)
        self.defined.take(fields, where)
        self.stated.take(fields, where)
        if fields["seq"] is not None:
            self._take(fields, shown, where)
        elif self.whole and self.tenant is not None and (request := fields.get("request_id")) is not None:
            self.requests.name(request, where)

    def finish(self) -> None:
        for move in self._in_order.rest():
            self._check(move)
        self.requests.finish()
        is_all_there = self.whole and not self.requests.removed_before
        self.pre_approved.finish(is_all_there=is_all_there)
        self.defined.finish(is_all_there=is_all_there)
        self.stated.finish()
        self.signed.finish()

    def _take(self, fields: dict[str, Any], shown: dict[str, str], where: dict[str, Any]) -> None:
        move, request, seq = (fields, shown, where), fields["request_id"], fields["seq"]
        if not self.whole:
            self._check(move)
            return
        is_first = begins(fields)
        self.requests.take(request, seq, fields["to_state"], where, begins=is_first)
        for due in self._in_order.take(request, seq, move, begins=is_first):
            self._check(due)

    def _check(self, move: Taken) -> None:
        fields, shown, where = move
        is_all_there = self.whole and not self.requests.removed_before
        self.approved.take(fields, shown, where)
        self.signed.take(fields, shown, where, is_all_there=is_all_there)

    def _check_place(self, fields: Mapping[str, Any], where: dict[str, Any]) -> None:
        if fields["log"] != self.log:
            self.findings.add(FindingKind.FOREIGN, f"this event belongs to another log, {fields['log']}", **where)
        elif self.tenant is not None and fields["tenant_id"] != self.tenant:
            self.findings.add(FindingKind.FOREIGN, f"this event is of {fields['tenant_id'] or 'the vendor'}", **where)
        id_ = _compact(fields["id"])
        if id_ in self._ids:
            self.findings.add(FindingKind.DOUBLED, "an earlier event has the same id", **where)
        self._ids.add(id_)

    def _check_details(
        self, committed: Mapping[str, object], shown: Mapping[str, PersonalDetail], where: dict[str, Any]
    ) -> dict[str, str]:
        good = {}
        for name, detail in shown.items():
            if committed.get(name) == hashlib.sha256(detail.salt + detail.value.encode()).hexdigest():
                good[name] = detail.value
            else:
                message = f"the value shown as {name} is not the one that the event commits to"
                self.findings.add(FindingKind.COMMITMENT, message, **where)
        self.details += len(shown)
        self.left_out += len(committed.keys() - shown.keys())
        return good

    def _note_removal(self, fields: Mapping[str, Any], number: int) -> None:
        """A removal counts only if it begins at 0 and ends before the event that records it."""
        if fields["removed_from"] == 0 and fields["removed_to"] <= number:
            self.removed = max(self.removed, fields["removed_to"])

    def _note_restore(self, fields: Mapping[str, Any], number: int) -> None:
        """A restore counts only if the log continued from a size before the event that records it."""
        if fields["log_id"] == self.log and fields["size"] <= number:
            shipped = fields["shipped_origin"], fields["shipped_size"], fields["shipped_root"]
            self.restores.append(RestoreRecord(number, fields["at"], fields["size"], shipped))
