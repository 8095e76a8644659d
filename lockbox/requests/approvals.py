"""The signed statement of an approval, built from the request's row and verified at every access check."""

import hashlib
import json
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from webauthn.helpers import bytes_to_base64url

from lockbox.audit.canonical import Value, canonical, instant, signed_text
from lockbox.audit.event_search import EventRow
from lockbox.audit.verifier import passkey_assertion
from lockbox.audit.verifier.approval_checks import APPROVAL_FORMAT
from lockbox.audit.verifier.passkey_assertion import ATTESTED, FORMAT, SIGNED, Assertion, BadAssertion
from lockbox.database import UnitOfWork
from lockbox.errors import PasskeyTooNew, StaleVersion
from lockbox.facts.enumerations import ApproveMeans, AuthMethod
from lockbox.identity import keyring, passkeys, row_macs
from lockbox.identity.credentials import Passkey
from lockbox.identity.keyring import Ed25519Signature
from lockbox.identity.passkeys import PasskeyChallenge, RelyingParty
from lockbox.identity.roles import Caller
from lockbox.identity.time_zones import DEFAULT, clock_time
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest, Decision
from lockbox.requests.policy import Terms, customer_decides, fewest
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.requests.quorum import ApprovalLimits

SALT_BYTES = 16
ANOTHER = (
    "What your passkey signed is not what would be decided now: the request, the customer's policy or what you "
    "filled in has changed since. Check the request and approve again."
)
SIGNED_DECISIONS = text("""
SELECT request_id, person_id, principals, access_window, resources, actions, max_uses, opens_at, comment, statement,
    signed_content, assertion, passkey_id, credential_id, public_key, created_at, trusted_at, only_at, mac
FROM signed_decisions(CAST(:ids AS uuid[]))
""")
NOT_YET = (
    "Your first passkey is new. By this customer's policy it approves from {at} on; until then another approver can "
    "approve, and you can deny."
)
DecisionRow = Decision | Row[Any]


@dataclass(frozen=True)
class ApprovalChallenge:
    """The challenge for a passkey, and the two texts to send back with its answer: see `docs/audit-format.md`.

    `is_demanded` is whether the policy demands a signature for each approval.
    """

    statement: str
    content: str
    question: PasskeyChallenge
    is_demanded: bool


@dataclass(frozen=True)
class SignedStatement:
    """The texts of `ApprovalChallenge`, the browser's answer, and the challenge, which can be used only once."""

    statement: str
    content: str
    credential: str
    challenge: bytes
    party: RelyingParty


@dataclass(frozen=True)
class Proof:
    facts: Mapping[str, Value] = field(default_factory=dict)
    personal: Mapping[str, str] = field(default_factory=dict)


NO_PROOF = Proof()


@dataclass(frozen=True)
class StatementContext:
    """`version` is the version of the request that the approver saw."""

    version: int
    policy_version: int
    issued_at: str
    salt: str


def issue_challenge(
    keys: Iterable[Passkey],
    request: AccessRequest,
    decision: Decision,
    *,
    party: RelyingParty,
    effective: EffectivePolicy,
) -> ApprovalChallenge:
    """Raises NotYours if the approver has no passkey that can sign here."""
    salt = secrets.token_bytes(SALT_BYTES).hex()
    at = decision.decided_at
    met = StatementContext(request.version, effective.version, instant(at), salt)
    content = _content(request, decision, met)
    said = _statement(request, decision, met, content)
    challenge = passkey_assertion.challenge(said)
    question = passkeys.signing_challenge(passkeys.signers(keys, request.tenant_id, at), party, challenge)
    is_demanded = effective.terms.approve_means is ApproveMeans.PASSKEY_SIGNED
    return ApprovalChallenge(said.decode(), content.decode(), question, is_demanded)


def check_signature(
    session: UnitOfWork,
    keys: Iterable[Passkey],
    request: AccessRequest,
    decision: Decision,
    *,
    signed: SignedStatement | None,
    effective: EffectivePolicy,
) -> Proof:
    """Check the passkey's signature, store it in the decision, and return what the event records of it.

    Without a signature, the event records that the server attests the decision. Raises StaleVersion, Invalid.
    """
    demanded = effective.terms.approve_means.value
    if signed is None:
        return Proof({"approve_means": demanded, "proof": ATTESTED})
    content, said = _rebuilt(request, decision, signed, effective.version)
    if said != signed.statement.encode() or passkey_assertion.challenge(said) != signed.challenge:
        raise _another(request)
    made = passkeys.signed(
        session,
        passkeys.signers(keys, request.tenant_id, decision.decided_at),
        signed.party,
        at=decision.decided_at,
        challenge=signed.challenge,
        shown=signed.credential,
    )
    facts = made.assertion.facts
    decision.statement, decision.signed_content = said.decode(), content.decode()
    decision.assertion, decision.passkey_id = canonical(facts).decode(), made.passkey_id
    return Proof(
        {"approve_means": demanded, "proof": SIGNED, "decision": decision.statement, "assertion": facts},
        {"signed_content": decision.signed_content, "credential": bytes_to_base64url(made.credential_id)},
    )


def hold_by_signatures(
    session: UnitOfWork, opened: Collection[tuple[AccessRequest, bytes | None]]
) -> frozenset[UUID]:
    """Return the ids of the open requests whose passkey signatures are valid, or whose policy demands none.

    Everyone whose approval counts must have signed the request with a passkey that they still have. `opened` holds
    each request with the body of the event that opened its window.
    """
    demanding = [request for request, _ in opened if _is_demanded(request)]
    rows = _signed_rows(session, demanding)
    good = {request.id for request, _ in opened if not _is_demanded(request)}
    for request, body in opened:
        if request.id not in good and _holds(session, request, body, rows.get(request.id, ())):
            good.add(request.id)
    return frozenset(good)


def _is_demanded(request: AccessRequest) -> bool:
    signs = request.approve_means is ApproveMeans.PASSKEY_SIGNED and customer_decides(request.mode)
    return signs and not request.break_glass


def _signed_rows(session: UnitOfWork, requests: Iterable[AccessRequest]) -> dict[UUID, list[Row[Any]]]:
    found: dict[UUID, list[Row[Any]]] = {request.id: [] for request in requests}
    if found:
        for row in session.execute(SIGNED_DECISIONS, {"ids": list(found)}):
            found[row.request_id].append(row)
    return found


def _holds(session: UnitOfWork, request: AccessRequest, body: bytes | None, rows: Sequence[Row[Any]]) -> bool:
    try:
        counted = {UUID(one) for one in json.loads(body or b"{}")["approved_by"]}
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
    good = {row.person_id for row in rows if _is_marked(session, row) and _is_good(request, row)}
    return len(counted) >= request.quorum and counted <= good - {request.requester_id}


def _is_marked(session: UnitOfWork, row: Row[Any]) -> bool:
    """Whether Lockbox added the passkey, rather than someone with a database login."""
    covered = {name: getattr(row, name) for name in ("person_id", "credential_id", "public_key", "created_at")}
    key = Passkey(id=row.passkey_id, trusted_at=row.trusted_at, only_at=row.only_at, **covered)
    return row_macs.is_held(session, row.mac, row_macs.passkey(key), key.id)


def _is_good(request: AccessRequest, row: Row[Any]) -> bool:
    covers = (
        set(request.open_resources) <= set(row.resources or request.resources)
        and set(request.open_actions) <= set(row.actions or request.actions)
        and fewest(request.max_uses, row.max_uses) == request.max_uses
        and (row.opens_at is None or (request.window_from is not None and request.window_from >= row.opens_at))
    )
    try:
        met = _circumstances(row.statement, row.signed_content)
        content = _content(request, row, met)
        said = _statement(request, row, met, content)
        if (said, content) != (row.statement.encode(), row.signed_content.encode()) or met.version >= request.version:
            return False
        assertion = Assertion.read(json.loads(row.assertion))
        passkey_assertion.check(assertion, said, passkeys.public_key(row.public_key))
    except (BadAssertion, KeyError, TypeError, ValueError, AttributeError):
        return False
    return covers


def _rebuilt(
    request: AccessRequest, decision: Decision, signed: SignedStatement, policy_version: int
) -> tuple[bytes, bytes]:
    try:
        said = _circumstances(signed.statement, signed.content)
        if said.issued_at > instant(decision.decided_at):
            raise _another(request)
        met = StatementContext(request.version, policy_version, said.issued_at, said.salt)
        content = _content(request, decision, met)
        return content, _statement(request, decision, met, content)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        raise _another(request) from None


def _another(request: AccessRequest) -> StaleVersion:
    return StaleVersion(ANOTHER, current_state=request.state.value, current_version=request.version)


def _circumstances(statement: str, content: str) -> StatementContext:
    """Read the values that only the two signed texts hold.

    The calling function rebuilds both texts with these values and compares the whole texts.
    """
    said, salted = json.loads(statement), json.loads(content)
    return StatementContext(
        int(said["version"]), int(said["policy_version"]), str(said["issued_at"]), str(salted["salt"])
    )


def _content(request: AccessRequest, decision: DecisionRow, met: StatementContext) -> bytes:
    """Canonical bytes of a decision's parts that can be personal and may be erased; the salt hides these parts."""
    kept = request.resources if decision.resources is None else decision.resources
    content = {"comment": decision.comment, "resources": list(kept), "salt": met.salt}
    return canonical(content | _context(request))


def _context(request: AccessRequest) -> dict[str, str]:
    text = request.context_text
    return {"context": text} if text else {}


def _statement(request: AccessRequest, decision: DecisionRow, met: StatementContext, content: bytes) -> bytes:
    """The canonical bytes whose SHA-256 a passkey signs."""
    kept = request.actions if decision.actions is None else decision.actions
    return canonical(
        {
            "format": FORMAT,
            "action": "approve",
            "request_id": request.id,
            "tenant_id": request.tenant_id,
            "version": met.version,
            "approver": decision.person_id,
            "principals": sorted(map(str, decision.principals)),
            "engineer": request.requester_id,
            "service": request.service,
            "actions": list(kept),
            "content": passkey_assertion.challenge(content).hex(),
            "access_window": decision.access_window or request.access_window,
            **({"max_uses": decision.max_uses} if decision.max_uses else {}),
            **({"opens_at": decision.opens_at} if decision.opens_at else {}),
            "mode": request.mode.value,
            "policy_version": met.policy_version,
            "issued_at": met.issued_at,
        }
    )


def statement(request: AccessRequest, by: Iterable[str]) -> bytes:
    """The canonical bytes whose SHA-256 the server signs when a window opens.

    `by` are the ids of the people whose approvals count.
    """
    return canonical(
        {
            "format": APPROVAL_FORMAT,
            "request_id": request.id,
            "tenant_id": request.tenant_id,
            "engineer": request.requester_id,
            "service": request.service,
            "resources": list(request.open_resources),
            "actions": list(request.open_actions),
            "opened_at": request.opened_at,
            "until": request.deadline_at,
            "by": sorted(by),
            "mode": request.mode.value,
            "policy_version": request.policy_version,
            **({"max_uses": request.max_uses} if request.max_uses else {}),
            **({"pre_approval_id": request.pre_approval_id} if request.pre_approval_id else {}),
            **({"opens_at": request.opens_at} if request.opens_at else {}),
            **({"extends": request.extends} if request.extends else {}),
            **({"break_glass": True} if request.break_glass else {}),
            **_context(request),
        }
    )


def sign(session: UnitOfWork, request: AccessRequest, by: Iterable[UUID]) -> Mapping[str, Value]:
    """Sign the approval by which a move opens a window; return what the event records of it.

    Resources are personal, so the event holds only the SHA-256 of the statement.
    """
    people = sorted(map(str, by))
    said = _hash_of(request, people)
    made = keyring.approval_keys(session).sign(_signed_text(request, people, said))
    return {
        "approved_by": people,
        "approval": {
            "statement": said,
            "signature": made.signature,
            "key": made.key,
        },
    }


def kept(decision: Decision | None, request: AccessRequest) -> dict[str, Value]:
    """Return how the approval narrows uses, start and actions (`kept_…`).

    `granted_actions` are the actions for which this approval opens the window; left out if it opens all actions.
    """
    found: dict[str, Value] = {
        "kept_actions": decision.actions if decision else None,
        "kept_max_uses": decision.max_uses if decision else None,
        "kept_opens_at": decision.opens_at if decision else None,
        "granted_actions": _opened(decision, request)[1],
    }
    return {name: value for name, value in found.items() if value is not None}


def limits_of(move: EventRow) -> ApprovalLimits:
    """Erased resources are treated as not narrowed."""
    body = json.loads(move.body) if move.body and move.action == Action.APPROVE else {}
    opens_at = body.get("kept_opens_at")
    return ApprovalLimits(
        body.get("access_window"),
        json.loads(move.kept_resources) if move.kept_resources else None,
        body.get("kept_actions"),
        body.get("kept_max_uses"),
        datetime.fromisoformat(opens_at) if opens_at else None,
    )


def is_narrower(limits: ApprovalLimits, request: AccessRequest) -> bool:
    kept = (limits.access_window, limits.resources, limits.actions)
    return any(limit is not None for limit in kept) or fewest(request.max_uses, limits.max_uses) != request.max_uses


def kept_resources(decision: Decision | None, request: AccessRequest) -> dict[str, str]:
    found = {
        "kept_resources": decision.resources if decision else None,
        "granted_resources": _opened(decision, request)[0],
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in found.items() if value is not None}


def _opened(decision: Decision | None, request: AccessRequest) -> tuple[list[str] | None, list[str] | None]:
    opens = decision is not None and request.opened_at == decision.decided_at
    return (request.granted_resources, request.granted_actions) if opens else (None, None)


def is_signed(session: UnitOfWork, request: AccessRequest, body: bytes | None) -> bool:
    if body is None:
        return False
    try:
        event = json.loads(body)
        people, approval = event["approved_by"], event["approval"]
        signature = Ed25519Signature(str(approval["key"]), str(approval["signature"]))
        by = [str(person) for person in people]
        said = _hash_of(request, by)
        text = _signed_text(request, by, said)
    except (KeyError, TypeError, ValueError):
        return False
    return bool(approval.get("statement") == said) and keyring.approval_keys(session).has_signed(text, signature)


def _hash_of(request: AccessRequest, by: Iterable[str]) -> str:
    return hashlib.sha256(statement(request, by)).hexdigest()


def _signed_text(request: AccessRequest, by: Iterable[str], said: str) -> bytes:
    window = request.id, request.tenant_id, request.opened_at, request.deadline_at
    return signed_text(*window, by=by, statement=said, opens_at=request.opens_at)


def passkey_obstacle(
    session: UnitOfWork,
    caller: Caller,
    terms: Terms,
    at: datetime,
    *,
    is_signed: bool = False,
    keys: Sequence[Passkey] | None = None,
) -> PasskeyTooNew | None:
    """Return why the caller's passkey cannot approve yet; None if it can, or if no passkey is needed.

    The age of the person's oldest passkey counts, because the first passkey vouches for later ones.
    """
    by_passkey = caller.means is AuthMethod.PASSKEY or is_signed
    must_sign = terms.approve_means is ApproveMeans.PASSKEY_SIGNED
    if not terms.first_passkey_wait or not (by_passkey or must_sign):
        return None
    keys = passkeys.held_by(session, caller.person_id) if keys is None else keys
    added = passkeys.first_added(session, keys)
    if added is None and not by_passkey:
        return None
    until = passkey_approves_from(added or at, terms)
    return PasskeyTooNew(NOT_YET.format(at=clock_time(until, DEFAULT))) if at < until else None


def passkey_approves_from(added: datetime, terms: Terms) -> datetime:
    return added + timedelta(seconds=terms.first_passkey_wait)
