"""A second verifier of exports, written from docs/audit-format.md alone: it shares no line with ours, and is slow."""

import base64
import json
from hashlib import sha256
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Wrong(Exception):  # noqa: N818 - it names what was found
    """The export is not as it must be."""


def must(condition: object, what: str) -> None:
    """Stop unless the condition holds."""
    if not condition:
        raise Wrong(what)


def bytes_of(texts: list[str]) -> list[bytes]:
    return [base64.b64decode(one, validate=True) for one in texts]


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def tree(leaves: list[bytes]) -> bytes:
    """Return the root, by the definition of RFC 6962."""
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
        trusted[name, bytes.fromhex(id_)] = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded)[1:])
    good = 0
    for line in signatures.splitlines():
        dash, name, encoded = line.split(" ")
        raw = base64.b64decode(encoded)
        must(dash == "—", "a signature begins with a dash")
        if (name, raw[:4]) in trusted:
            try:
                trusted[name, raw[:4]].verify(raw[4:], said.encode())
            except InvalidSignature:
                raise Wrong("a signature is wrong") from None
            good += 1
    must(good, "nobody who is trusted has signed it")
    origin, size, root, *_ = said.split("\n")
    return origin, int(size), base64.b64decode(root)


def check(export: bytes, keys: list[str], seen: tuple[str, ...] = ()) -> int:
    """Return how many events are good; raise Wrong, KeyError, ValueError or TypeError where the export is not."""
    must(export.endswith(b"\n"), "the last line is not whole")
    first, *middle, last = [json.loads(line) for line in export.decode().split("\n")[:-1]]
    must(first["export"] == "lockbox-audit-export/1", "another format")
    origin, size, root = opened(first["checkpoint"], keys)
    must((origin, size) == (first["origin"], first["size"]), "the first line and the checkpoint differ")
    log = origin.split("/audit/")[1].split("/")[0]
    must(first["log"] == log or (log == "vendor" and set(first["log"]) == {"0", "-"}), "another log")
    events = [line for line in middle if "number" in line]
    must(list(last) == ["end"] and last["end"] == {"events": len(events)}, "the last line is missing or miscounts")
    leaves: dict[int, bytes] | None = None
    if first["whole"]:
        leaves = _whole(middle, size, root)
    else:
        _filtered(middle, size, root)
    _older(first, [opened(note, keys) for note in seen], leaves, (origin, size, root))
    gone = any("removed" in line for line in middle)
    _events(events, None if log == "vendor" else log, whole=first["whole"], gone=gone)
    return len(events)


def _filtered(lines: list[dict[str, Any]], size: int, root: bytes) -> None:
    numbers = [line["number"] for line in lines]
    must(numbers == sorted(set(numbers)) and all(number < size for number in numbers), "the numbers do not grow")
    for line in lines:
        must(set(line) == {"number", "body", "personal", "proof"}, "unknown members")
        leaf = sha256(b"\x00" + line["body"].encode()).digest()
        must(root_by_path(leaf, line["number"], size, bytes_of(line["proof"])) == root, "a path leads elsewhere")


def _whole(lines: list[dict[str, Any]], size: int, root: bytes) -> dict[int, bytes]:
    """Return the hash of each leaf that is still known."""
    leaves: dict[int, bytes] = {}
    tiles = (size + 255) // 256
    at, end, removed = 0, 0, set[int]()
    said: set[int] = set()
    for line in lines:
        if "tile" in line:
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
            if fields["action"] == "trail_removed":
                said |= set(range(fields["removed_from"], fields["removed_to"]))
            at += 1
        else:
            ((why, span),) = line.items()
            must(why in {"removed", "withheld"} and span["from"] == at < span["to"] <= size, "a gap is elsewhere")
            if why == "removed":
                removed |= set(range(at, span["to"]))
            if span.get("hashes"):
                must(at == end, "whole tiles are removed between tiles")
                end = span["to"]
            must(span["to"] <= end, "a gap is too long")
            at = span["to"]
    must(at == end == size, "the file ends too early")
    must(removed <= said, "nothing says that this was removed")
    return leaves


def _older(
    first: dict[str, Any],
    seen: list[tuple[str, int, bytes]],
    leaves: dict[int, bytes] | None,
    own: tuple[str, int, bytes],
) -> None:
    proofs = {one["from"]: bytes_of(one["proof"]) for one in first["consistency"]}
    for origin, size, root in seen:
        must(origin == own[0] and size <= own[1], "another log, or an older one")
        if size == own[1]:
            must(root == own[2], "a fork")
        elif size in proofs:
            must(size == 0 or roots_by_proof(size, own[1], proofs[size], root) == (root, own[2]), "a fork")
        else:
            must(leaves, "nothing shows it")
            must(leaves and tree([leaves[number] for number in range(size)]) == root, "a fork")


def _events(lines: list[dict[str, Any]], tenant: str | None, *, whole: bool, gone: bool) -> None:
    moves: dict[str, list[int]] = {}
    for line in lines:
        fields = json.loads(line["body"])
        must(rfc8785.dumps(fields).decode() == line["body"], "a body is not canonical")
        must(fields["tenant_id"] == tenant, "an event of somebody else")
        for name, detail in line["personal"].items():
            hashed = sha256(base64.b64decode(detail["salt"]) + detail["value"].encode()).hexdigest()
            must(fields["personal"][name] == hashed, "a value does not fit")
        if fields["seq"] is not None:
            moves.setdefault(fields["request_id"], []).append(fields["seq"])
    for seqs in moves.values() if whole else ():
        start = min(seqs) if gone else 1
        must(sorted(seqs) == list(range(start, start + len(seqs))), "a request's moves have a gap")
