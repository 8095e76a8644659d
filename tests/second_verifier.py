"""A second, slow verifier of exports, written only from docs/audit-format.md: it shares no line with the first."""

import base64
import json
import re
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

NOBODY = "00000000-0000-0000-0000-000000000000"
FIRST = {"export", "origin", "log", "generation", "size", "checkpoint", "whole", "asked", "consistency"}
PLAIN = {str, int, bool, type(None)}
INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


OF_WINDOW = {"max_uses", "opens_at", "break_glass", "pre_approval_id"}


class VerificationFailed(Exception):  # noqa: N818 - it names what was found
    """The export is not as the format demands."""


def must(condition: object, what: str) -> None:
    """Fail unless the condition holds."""
    if not condition:
        raise VerificationFailed(what)


def bytes_of(texts: list[str]) -> list[bytes]:
    return [exact(text) for text in texts]


def exact(text: str) -> bytes:
    """Return the bytes of a text in base64, whose padding bits are zero."""
    found = base64.b64decode(text, validate=True)
    must(base64.b64encode(found).decode() == text, "a text in base64 has padding bits that are not zero")
    return found


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def tree(leaves: list[bytes]) -> bytes:
    if len(leaves) <= 1:
        return leaves[0] if leaves else sha256(b"").digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node(tree(leaves[:k]), tree(leaves[k:]))


def root_by_path(leaf: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """Return the root that an audit path leads to, by the recursion that makes it."""
    if size == 1:
        must(not path, "the path is too long")
        return leaf
    must(path, "the path is too short")
    k = 1
    while k * 2 < size:
        k *= 2
    if index < k:
        return node(root_by_path(leaf, index, k, path[:-1]), path[-1])
    return node(path[-1], root_by_path(leaf, index - k, size - k, path[:-1]))


def roots_by_proof(old: int, new: int, path: list[bytes], old_root: bytes) -> tuple[bytes, bytes]:
    """Return the older and the newer root that a consistency proof leads to, by the recursion that makes it."""

    def sub(m: int, n: int, path: list[bytes], *, known: bool) -> tuple[bytes, bytes]:
        if m == n:
            if known:
                must(not path, "the proof is too long")
                return old_root, old_root
            must(len(path) == 1, "the proof is too long or too short")
            return path[0], path[0]
        must(path, "the proof is too short")
        k = 1
        while k * 2 < n:
            k *= 2
        if m <= k:
            older, newer = sub(m, k, path[:-1], known=known)
            return older, node(newer, path[-1])
        older, newer = sub(m - k, n - k, path[:-1], known=False)
        return node(path[-1], older), node(path[-1], newer)

    return sub(old, new, path, known=True)


def opened(note: str, keys: list[str]) -> tuple[str, int, bytes]:
    """Return origin, size and root of a checkpoint that one of the keys has signed."""
    said, _, signatures = note.rpartition("\n\n")
    said += "\n"
    trusted = {}
    for key in keys:
        name, id_, encoded = key.split("+", 2)
        trusted[name, bytes.fromhex(id_)] = Ed25519PublicKey.from_public_bytes(exact(encoded)[1:])
    good = 0
    for line in signatures.splitlines():
        dash, name, encoded = line.split(" ")
        raw = exact(encoded)
        must(dash == "—", "a signature begins with a dash")
        if (name, raw[:4]) in trusted:
            try:
                trusted[name, raw[:4]].verify(raw[4:], said.encode())
            except InvalidSignature:
                raise VerificationFailed("a signature is wrong") from None
            good += 1
    must(good, "nobody who is trusted has signed it")
    origin, size, root, *_ = said.split("\n")
    return origin, int(size), exact(root)


def no_fraction(_: str) -> float:
    raise VerificationFailed("a number has a fraction or an exponent")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    must(len({name for name, _ in pairs}) == len(pairs), "a member is there twice")
    return dict(pairs)


def check(export: bytes, keys: list[str], seen: tuple[str, ...] = ()) -> int:
    """Return the number of events; raise VerificationFailed, KeyError, ValueError or TypeError if the export is bad.

    Args:
        export: the file.
        keys: the keys of logs and of approvals.
        seen: checkpoints that the reader got elsewhere.
    """
    must(export.endswith(b"\n"), "the last line is not whole")
    lines = export.decode().split("\n")[:-1]
    first, *middle, last = [json.loads(line, object_pairs_hook=once, parse_float=no_fraction) for line in lines]
    must(set(first) == FIRST and first["export"] == "lockbox-audit-export/1", "another format")
    must(all(type(one) is str for one in first["asked"].values()), "it was asked for by something else than text")
    of_logs = [key for key in keys if not key.startswith("lockbox/approvals+")]
    origin, size, root = opened(first["checkpoint"], of_logs)
    must((origin, size) == (first["origin"], first["size"]), "the first line and the checkpoint differ")
    log, *later = origin.split("/audit/")[1].split("/")
    must(first["log"] == (NOBODY if log == "vendor" else log), "another log")
    must(later == ([str(first["generation"])] if first["generation"] > 1 else []), "another generation")
    events = [line for line in middle if "number" in line]
    must(all(type(line["number"]) is int for line in events), "an event has no number")
    must(last == {"end": {"events": len(events)}}, "the last line is missing or miscounts")
    leaves: dict[int, bytes] | None = None
    if first["whole"]:
        leaves = _whole(middle, size, root)
    else:
        _filtered(middle, size, root)
    _older(first, [opened(note, of_logs) for note in seen], leaves, (origin, size, root))
    gone = any("removed" in line for line in middle)
    restored = _records(events, first["log"])
    must(not first["whole"] or not later or gone or restored, "nothing says that a back-up was restored")
    _events(events, first["log"], whole=first["whole"], gone=gone)
    _approvals(in_order(events) if first["whole"] else events, [key for key in keys if key not in of_logs])
    _uses(events)
    _unapproved(events)
    _gates(events, is_all_there=first["whole"] and not gone)
    return len(events)


def _records(events: list[dict[str, Any]], log: str) -> bool:
    """Return whether an event records a restore of this log; fail if such a record is incomplete."""
    found = False
    for line in events:
        said = json.loads(line["body"])
        if said["action"] == "audit_events_removed":
            must(_counts(said["removed_from"], said["removed_to"]), "what was removed is not said in numbers")
        if said["action"] == "restored":
            must(_counts(said["size"], said["shipped_size"]), "what was restored is not said in numbers")
            texts = [said[name] for name in ("log_id", "shipped_origin", "shipped_root")]
            must(all(type(text) is str for text in texts), "a restore is of no log")
            found = found or (said["log_id"] == log and said["size"] <= line["number"])
    return found


def _counts(*numbers: object) -> bool:
    return all(type(number) is int and number >= 0 for number in numbers)


def _filtered(lines: list[dict[str, Any]], size: int, root: bytes) -> None:
    numbers = [line["number"] for line in lines]
    must(numbers == sorted(set(numbers)) and all(number < size for number in numbers), "the numbers do not grow")
    for line in lines:
        must(set(line) == {"number", "body", "personal", "proof"}, "unknown members")
        leaf = sha256(b"\x00" + line["body"].encode()).digest()
        must(root_by_path(leaf, line["number"], size, bytes_of(line["proof"])) == root, "a path leads elsewhere")


def _whole(lines: list[dict[str, Any]], size: int, root: bytes) -> dict[int, bytes]:
    """Return the hash of each leaf that was not removed."""
    leaves: dict[int, bytes] = {}
    tiles = (size + 255) // 256
    at, end, removed = 0, 0, set[int]()
    said: set[int] = set()
    for line in lines:
        if "tile" in line:
            must(set(line) == {"tile", "leaves", "proof"}, "unknown members")
            must(at == end == line["tile"] * 256, "a tile begins too early or too late")
            end = min(size, at + 256)
            hashes = bytes_of(line["leaves"])
            must(len(hashes) == end - at > 0, "a tile has too many or too few leaves")
            must(root_by_path(tree(hashes), line["tile"], tiles, bytes_of(line["proof"])) == root, "a tile is wrong")
            leaves |= {at + place: one for place, one in enumerate(hashes)}
        elif "body" in line:
            must(set(line) == {"number", "body", "personal"} and line["number"] == at < end, "not the next event")
            must(sha256(b"\x00" + line["body"].encode()).digest() == leaves[at], "an event is not as it was sealed")
            fields = json.loads(line["body"])
            if fields["action"] == "audit_events_removed" and fields["removed_to"] <= at:
                said |= set(range(fields["removed_to"] if fields["removed_from"] == 0 else 0))
            at += 1
        else:
            ((why, span),) = line.items()
            must(set(span) == {"from", "to", "hashes"}, "unknown members")
            must(why == "removed" and span["from"] == at < span["to"] <= size, "a gap is elsewhere")
            must(len(removed) == at, "something behind the beginning is removed")
            removed |= set(range(at, span["to"]))
            if span.get("hashes"):
                must(at == end, "whole tiles are removed between tiles")
                end = span["to"]
            must(span["to"] <= end, "a gap is too long")
            at = span["to"]
    must(at == end == size, "the file ends too early")
    must(removed <= said, "nothing says that this was removed")
    return leaves


def in_order(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the events, with the moves of each request in the order of their numbers."""
    return sorted(lines, key=lambda line: json.loads(line["body"])["seq"] or 0)


def beyond_format_1(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a move that only format 2 has."""
    return {name: value for name, value in fields.items() if name in {"act_as", "agent", "call"}}


def earlier(origin: str, than: str) -> bool:
    (name, _, rest), (same, _, later) = origin.partition("/audit/"), than.partition("/audit/")
    (log, *one), (its, *other) = rest.split("/"), later.split("/")
    return (name, log) == (same, its) and int(*one or ["1"]) < int(*other or ["1"])


def _older(
    first: dict[str, Any],
    seen: list[tuple[str, int, bytes]],
    leaves: dict[int, bytes] | None,
    own: tuple[str, int, bytes],
) -> None:
    proofs = {one["from"]: bytes_of(one["proof"]) for one in first["consistency"]}
    must(len(proofs) == len(first["consistency"]), "a size has two proofs")
    must(all(set(one) == {"from", "proof"} for one in first["consistency"]), "unknown members")
    for origin, size, root in seen:
        must(origin == own[0] or earlier(origin, own[0]), "another log, or one that began later")
        must(size <= own[1], "the export is older, or what was seen was given up")
        if size == own[1]:
            must(root == own[2], "a fork")
        elif size in proofs:
            must(size == 0 or roots_by_proof(size, own[1], proofs[size], root) == (root, own[2]), "a fork")
        else:
            must(leaves, "nothing shows it")
            must(leaves and tree([leaves[number] for number in range(size)]) == root, "a fork")


def _plain(value: object) -> bool:
    return type(value) in PLAIN or (type(value) is list and all(type(one) is str for one in value))


def _events(lines: list[dict[str, Any]], log: str, *, whole: bool, gone: bool) -> None:
    moves: dict[str, list[int]] = {}
    begins: dict[str, list[int]] = {}
    ends: dict[str, int] = {}
    named: set[str] = set()
    ids = [json.loads(line["body"])["id"] for line in lines]
    must(len(ids) == len(set(ids)), "two events have one id")
    for line in lines:
        fields = json.loads(line["body"])
        must(rfc8785.dumps(fields).decode() == line["body"], "a body is not canonical")
        must(fields["log"] == log, "an event of another log")
        must(type(fields["tenant_id"]) in {str, type(None)}, "a tenant is no text")
        must(log == NOBODY or fields["tenant_id"] == log, "an event of somebody else")
        must(INSTANT.fullmatch(fields["at"]), "a time is of another form")
        for value in fields.values():
            inner = list(value.values()) if type(value) is dict else [value]
            must(all(map(_plain, inner)), "a member is of another form")
        must(type(fields["id"]) is type(fields["action"]) is str, "an event has no id or no action")
        must(type(fields["personal"]) is dict, "what is personal is no object")
        must(type(fields.get("actor_id")) in {str, type(None)}, "an actor is no text")
        must(type(fields.get("submission", {})) is dict, "a submission is no object")
        must(type(fields.get("pre_approval_id", "")) is str, "a pre-approval is not named")
        must(all(type(field) is str for field in fields["personal"].values()), "a commitment is no text")
        _details(line["personal"], fields["personal"])
        request, seq, state = fields.get("request_id"), fields["seq"], fields.get("to_state")
        must(all(type(one) is str or (one is None and seq is None) for one in (request, state)), "not of a request")
        named |= {request} - {None}
        if seq is not None:
            must(type(seq) is int and seq > 0, "a move has no number")
            moves.setdefault(request, []).append(seq)
            if seq == 1 or "submission" in fields:
                begins.setdefault(request, []).append(seq)
            if state not in {"reviewing", "pending", "active"}:
                ends[request] = min(seq, ends.get(request, seq))
    for request, seqs in moves.items() if whole else ():
        start = min(seqs)
        must(begins.get(request) == [start] or (gone and request not in begins), "a request begins elsewhere")
        must(sorted(seqs) == list(range(start, start + len(seqs))), "a request's moves have a gap")
        must(ends.get(request, max(seqs)) == max(seqs), "a request goes on behind its end")
    must(not whole or gone or log == NOBODY or named == moves.keys(), "a request is named, and has no moves")


def _details(shown: dict[str, Any], committed: dict[str, Any]) -> None:
    for name, detail in shown.items():
        must(set(detail) == {"salt", "value"}, "unknown members")
        salt = exact(detail["salt"])
        must(len(salt) == 16, "a salt is too short or too long")
        must(committed[name] == sha256(salt + detail["value"].encode()).hexdigest(), "a value does not fit")


def _file(submitted: dict[str, Any], line: dict[str, Any], fields: dict[str, Any]) -> None:
    """Note what a request asks for, and the stricter mode that applies after an endorsement."""
    request = str(fields.get("request_id"))
    begins = "submission" in fields or (fields["action"], fields["seq"]) == ("submit", 1)
    is_whole = "context" not in fields["personal"] or "context" in line["personal"]
    if "resources" in line["personal"] and is_whole and begins:
        engineer = fields.get("on_behalf_of") or fields.get("actor_id")
        said = fields.get("submission", fields | {"engineer": engineer})
        context = line["personal"].get("context")
        said = {name: value for name, value in said.items() if name != "context"}
        said |= {"context": context["value"]} if context else {}
        submitted[request] = said, json.loads(line["personal"]["resources"]["value"])
    if fields["action"] == "endorse" and "mode" in fields and request in submitted:
        order = ["off", "observe", "enforce"]
        before, resources = submitted[request]
        must(order.index(before["mode"]) < order.index(fields["mode"]), "a mode got looser")
        submitted[request] = before | {"mode": fields["mode"]}, resources


def _uses(events: list[dict[str, Any]]) -> None:
    allowed: dict[str, int] = {}
    used_up = set()
    for line in events:
        fields = json.loads(line["body"])
        request = fields.get("request_id")
        if fields["seq"] is not None and fields["to_state"] == "active" and type(fields.get("max_uses")) is int:
            allowed.setdefault(request, fields["max_uses"])
        elif fields["seq"] is None and request in allowed and fields["action"] == "used_up":
            must(fields.get("max_uses") == allowed[request], "it was used up too early or too late")
            must(request not in used_up, "it was used up twice")
            used_up.add(request)
        elif fields["seq"] is None and request in allowed and fields["action"] == "last_used":
            count = fields.get("count")
            must(type(count) is int and count <= allowed[request], "it was used too often")


def _gates(events: list[dict[str, Any]], *, is_all_there: bool) -> None:
    told: dict[str, list[str]] = {}
    named: list[tuple[str, str]] = []
    for line in events:
        fields = json.loads(line["body"])
        if fields["action"] in {"gate_defined", "gate_redefined"} and fields["seq"] is None:
            service, digest, before = fields["service"], fields["sha256"], fields.get("before")
            must(type(service) is str, "a definition is of no gate")
            for one in (digest, before or digest):
                must(re.fullmatch("[0-9a-f]{64}", one), "a definition has no digest")
            if before and service in told:
                named.append((service, before))
            told.setdefault(service, []).append(digest)
    for service, before in named if is_all_there else ():
        must(before in told[service], "a gate had a definition that the log leaves out")


def _unapproved(events: list[dict[str, Any]]) -> None:
    bodies = [json.loads(line["body"]) for line in events]
    moves = [body for body in bodies if body["seq"] is not None]
    glass = [move["at"] for move in moves if (move["action"], move["to_state"]) == ("break_glass", "active")]
    months = set()
    for said in bodies:
        if said["action"] != "unapproved_access_stated" or said["seq"] is not None:
            continue
        must(type(said.get("month")) is str and re.fullmatch("[0-9]{4}-[0-9]{2}", said["month"]), "of no month")
        must(
            said["at"][:7] == said["month"] and said["month"] not in months, "a month is stated twice, or not its own"
        )
        months.add(said["month"])
        must(type(said.get("since")) is str and type(said.get("opened")) is dict, "it is not stated since when")
        begins, ends = (datetime.fromisoformat(said[name]) for name in ("since", "at"))
        minute = timedelta(minutes=1)
        opened = [at for at in glass if begins + minute < datetime.fromisoformat(at) < ends - minute]
        count = said["opened"].get("break_glass")
        must(type(count) is int and len(opened) <= count, "break-glass is left out of what is stated")


def _approvals(lines: list[dict[str, Any]], keys: list[str]) -> None:
    trusted = {}
    for key in keys:
        _, id_, encoded = key.split("+", 2)
        trusted[id_] = Ed25519PublicKey.from_public_bytes(exact(encoded)[1:])
    submitted: dict[str, Any] = {}
    for line in lines:
        fields = json.loads(line["body"])
        request = fields.get("request_id")
        _file(submitted, line, fields)
        asked = submitted.get(request)
        if fields["seq"] is not None and fields["to_state"] not in {"reviewing", "pending", "active"}:
            submitted.pop(request, None)
        must(fields["action"] != "approve" or fields.get("side") == "customer", "somebody else approves")
        opens = fields["seq"] is not None and fields["to_state"] == "active"
        must(not opens or "approval" in fields, "a window is opened without an approval")
        if "approval" not in fields:
            continue
        must(fields["seq"] is not None, "what is no move is signed as an approval")
        window = {
            "request_id": request,
            "tenant_id": fields["tenant_id"],
            "opened_at": fields["at"],
            "until": fields.get("deadline_at"),
            "by": sorted(fields["approved_by"]),
        }
        approval, further = fields["approval"], beyond_format_1(fields)
        must(type(approval) is dict, "an approval of another form")
        number = "2" if further else "1"
        form = f"lockbox signed approval {number}"
        must(("format" in approval) is bool(further), "an approval of another format")
        must(approval.get("format", form) == form, "an approval of another format")
        hidden = "granted_resources" in fields["personal"] and "granted_resources" not in line["personal"]
        if asked and not hidden:
            said = window | further | _stated(line, fields, *asked)
            said["format"] = f"lockbox approval {number}"
            must(sha256(rfc8785.dumps(said)).hexdigest() == approval["statement"], "something else was approved")
        signed = window | further | {"format": form, "statement": approval["statement"]}
        signed |= {name: value for name, value in fields.items() if name == "opens_at"}
        must(trusted, "no key of approvals checks an approval")
        try:
            trusted[approval["key"]].verify(exact(approval["signature"]), rfc8785.dumps(signed))
        except InvalidSignature:
            raise VerificationFailed("the signature of an approval is wrong") from None


def _stated(
    line: dict[str, Any], fields: dict[str, Any], submitted: dict[str, Any], resources: list[str]
) -> dict[str, Any]:
    """Return the part of the signed statement about what was asked and granted, without that about the window."""
    if "granted_resources" in fields["personal"]:
        granted = json.loads(line["personal"]["granted_resources"]["value"])
        must(bool(granted) and set(granted) <= set(resources), "more was opened than was asked")
        resources = granted
    if "granted_actions" in fields:
        granted = fields["granted_actions"]
        must(bool(granted) and set(granted) <= set(submitted["actions"]), "more was opened than was asked")
        submitted = submitted | {"actions": granted}
    return {name: submitted.get(name) for name in ("service", "actions", "mode", "policy_version")} | {
        "engineer": submitted.get("engineer"),
        "resources": resources,
        **{name: value for name, value in fields.items() if name in OF_WINDOW},
        **{name: value for name, value in submitted.items() if name in {"extends", "context"}},
    }
