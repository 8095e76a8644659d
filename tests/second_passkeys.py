"""The second verifier's checks of passkeys, written from docs/audit-format.md; py_webauthn checks signatures."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any

import cbor2
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from webauthn import verify_authentication_response
from webauthn.helpers.exceptions import WebAuthnException

from tests.second_verifier import VerificationFailed, beyond_format_1, exact, in_order, must


def check(lines: list[dict[str, Any]], files: Sequence[dict[str, Any]], *, whole: bool, is_required: bool) -> None:
    """Fail unless each approval is signed by a passkey in the customer's key files, or needs no signature."""
    asked: dict[str, Any] = {}
    votes: dict[str, list[dict[str, Any]]] = {}
    all_there = whole and not any("removed" in line for line in lines)
    events = [line for line in lines if "body" in line]
    for line in in_order(events) if whole else events:
        fields = json.loads(line["body"])
        request = str(fields.get("request_id"))
        if fields["seq"] is None:
            continue
        begins = fields.get("submission", fields)
        first = fields["seq"] == 1 or "submission" in fields
        if first and {"service", "actions", "mode", "access_window"} <= set(begins):
            submitter = fields["on_behalf_of"] if fields.get("on_behalf_of") else fields.get("actor_id")
            engineer = begins["engineer"] if "submission" in fields else submitter
            of_context = {"context": line["personal"]["context"]["value"]} if "context" in line["personal"] else {}
            in_clear = {name: value for name, value in begins.items() if name != "context"}
            asked[request] = in_clear | {"engineer": engineer} | of_context, line["personal"].get("resources")
        if fields["action"] == "endorse" and fields.get("mode") == "enforce" and request in asked:
            asked[request][0]["mode"] = "enforce"
        if fields["action"] == "approve":
            votes.setdefault(request, []).append(line)
            if "decision" in fields or "assertion" in fields:
                must(request in asked or not all_there, "what was asked for is not said")
                must(files or not is_required, "no keys check a signature")
                submitted, resources = asked.get(request, (None, None))
                _signed(fields, line["personal"], submitted, resources, files)
            else:
                said = [fields.get("approve_means"), fields.get("proof")]
                must("passkey-signed" not in said, "a signature that was demanded is missing")
                must(not is_required, "an approval is not signed")
        if fields["to_state"] == "active":
            must(request in asked or not (all_there and files), "what was asked for is not said")
            given = asked.get(request), votes.get(request, [])
            _opened(line, *given, all_there=all_there, is_required=is_required)
        if fields["to_state"] not in {"reviewing", "pending", "active"}:
            asked.pop(request, None)
            votes.pop(request, None)


def _opened(
    opening: dict[str, Any],
    asked: tuple[dict[str, Any], dict[str, str] | None] | None,
    votes: Sequence[dict[str, Any]],
    *,
    all_there: bool,
    is_required: bool,
) -> None:
    fields = json.loads(opening["body"])
    if asked and asked[0]["mode"] in ("observe", "off") and fields["action"] == "endorse":
        must(not is_required, "the vendor opened it alone")
        return
    if "pre_approval_id" in fields and fields["action"] in {"submit", "endorse"}:
        must(not is_required, "a pre-approval opened it")
        return
    if fields["action"] == "break_glass":
        must(not is_required, "break-glass opened it")
        return
    must(fields["action"] == "approve" and fields["approved_by"], "nobody approved")
    theirs = {json.loads(vote["body"])["actor_id"]: vote for vote in votes}
    must(not all_there or set(fields["approved_by"]) <= theirs.keys(), "a vote is counted that is not there")
    for person in theirs.keys() & set(fields["approved_by"]):
        if asked:
            _within(opening, theirs[person], *asked)


def _within(
    opening: dict[str, Any], vote: dict[str, Any], submitted: dict[str, Any], resources: dict[str, str] | None
) -> None:
    opened, approved = json.loads(opening["body"]), json.loads(vote["body"])
    begins = opened.get("opens_at", opened["at"])
    lasts = datetime.fromisoformat(opened["deadline_at"]) - datetime.fromisoformat(begins)
    earliest = approved.get("kept_opens_at", submitted.get("not_before"))
    must(earliest is None or begins >= earliest, "it begins earlier than was approved")
    window = approved.get("access_window", submitted["access_window"])
    must(lasts.total_seconds() <= window, "it is open for longer than was approved")
    some, kept = (
        one.get(name, submitted["actions"]) for one, name in ((opened, "granted_actions"), (approved, "kept_actions"))
    )
    must(type(some) is type(kept) is list and set(some) <= set(kept), "it is open for other actions")
    most = approved.get("kept_max_uses", submitted.get("max_uses"))
    uses = opened.get("max_uses")
    must(most is None or (type(uses) is type(most) is int and uses <= most), "it is open for more uses")
    is_part = "granted_resources" in opened["personal"], "kept_resources" in approved["personal"]
    must(is_part != (False, True), "it is open for all resources, and fewer were approved")
    given = opening["personal"].get("granted_resources") if is_part[0] else resources
    kept = vote["personal"].get("kept_resources") if is_part[1] else resources
    if given and kept:
        must(set(json.loads(given["value"])) <= set(json.loads(kept["value"])), "it is open for other resources")


def _signed(
    fields: dict[str, Any],
    shown: dict[str, Any],
    submitted: dict[str, Any] | None,
    resources: dict[str, str] | None,
    files: Sequence[dict[str, Any]],
) -> None:
    said = json.loads(fields["decision"])
    further = beyond_format_1(fields)
    expected = (
        said
        | further
        | {
            "format": "lockbox decision 2" if further else "lockbox decision 1",
            "action": "approve",
            "request_id": fields["request_id"],
            "tenant_id": fields["tenant_id"],
            "version": fields["seq"] - 1,
            "approver": fields["actor_id"],
            "principals": fields.get("principals", []),
            "policy_version": fields["policy_version"],
        }
    )
    if "kept_max_uses" in fields:
        expected["max_uses"] = fields["kept_max_uses"]
    if "kept_opens_at" in fields:
        expected["opens_at"] = fields["kept_opens_at"]
    if submitted:
        expected |= {
            "engineer": submitted["engineer"],
            "service": submitted["service"],
            "mode": submitted["mode"],
            "actions": fields.get("kept_actions", submitted["actions"]),
            "access_window": fields.get("access_window", submitted["access_window"]),
        }
    members = 15 + len(further) + len(fields.keys() & {"kept_max_uses", "kept_opens_at"})
    must(len(said) == members, "a statement has other members")
    must(rfc8785.dumps(expected).decode() == fields["decision"], "something else was signed")
    took = datetime.fromisoformat(fields["at"]) - datetime.fromisoformat(said["issued_at"])
    must(0 <= took.total_seconds() <= 600, "it was asked for at another time")
    must("signed_content" in fields["personal"], "no resources were signed")
    if "signed_content" in shown:
        _content(said, fields, shown, resources)
        context = json.loads(shown["signed_content"]["value"]).get("context")
        must(not submitted or context == submitted.get("context", context), "another context was signed")
    if files:
        _assertion(fields, [file for file in files if file["tenant_id"] == fields["tenant_id"]])


def _content(
    said: dict[str, Any], fields: dict[str, Any], shown: dict[str, Any], resources: dict[str, str] | None
) -> None:
    text = shown["signed_content"]["value"]
    must(sha256(text.encode()).hexdigest() == said["content"], "other resources are shown than were signed")
    content = json.loads(text)
    if "comment" in shown or "comment" not in fields["personal"]:
        must(content["comment"] == shown.get("comment", {}).get("value"), "another comment was signed")
    kept = shown.get("kept_resources") if "kept_resources" in fields["personal"] else resources
    must(kept is None or json.loads(kept["value"]) == content["resources"], "other resources were signed")


def _assertion(fields: dict[str, Any], files: Sequence[dict[str, Any]]) -> None:
    made, person = fields["assertion"], fields["actor_id"]
    found = [
        (file, exact(key["public_key"]))
        for file in files
        for key in file["keys"]
        if (key["person_id"], key["fingerprint"]) == (person, made["key"])
    ]
    must(found, "a key that is none of the approver's")
    file, public = found[-1]
    client = exact(made["client_data"])
    must(not json.loads(client).get("crossOrigin"), "asked for in a frame")
    answer = {"authenticatorData": made["authenticator_data"], "signature": made["signature"]}
    response = {name: _url(exact(value)) for name, value in answer.items()} | {"clientDataJSON": _url(client)}
    try:
        verify_authentication_response(
            credential={"id": "AA", "rawId": "AA", "type": "public-key", "response": response},
            expected_challenge=sha256(fields["decision"].encode()).digest(),
            expected_rp_id=file["rp_id"],
            expected_origin=file["origin"],
            credential_public_key=_cose(public),
            credential_current_sign_count=0,
            require_user_verification=True,
        )
    except WebAuthnException as wrong:
        raise VerificationFailed(str(wrong)) from None


def _cose(public: bytes) -> bytes:
    key = load_der_public_key(public)
    if not isinstance(key, EllipticCurvePublicKey):
        raise VerificationFailed("a key of no algorithm that tests use")
    point = key.public_numbers()
    return cbor2.dumps({1: 2, 3: -7, -1: 1, -2: point.x.to_bytes(32), -3: point.y.to_bytes(32)})


def _url(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()
