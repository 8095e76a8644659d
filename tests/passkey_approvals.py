"""Approvals that passkeys sign, for tests: an authenticator for somebody, what it is asked, and its answer."""

import json
from typing import Any
from uuid import UUID

import cbor2

from harness.people import HERE, World
from harness.stage import setting
from lockbox.database import now
from lockbox.facts.enumerations import ApproveMeans
from lockbox.identity import keyring, row_macs
from lockbox.identity.credentials import Passkey
from lockbox.identity.passkeys import RelyingParty
from lockbox.requests import decide
from lockbox.requests.approvals import ApprovalChallenge, SignedStatement
from lockbox.requests.decisions import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.authenticator import Authenticator, cose

PARTY = RelyingParty("lockbox.example", "https://lockbox.example")
DEMANDED = Policy(vendor_review=False, approve_means=ApproveMeans.PASSKEY_SIGNED)


def enrol(world: World, name: str) -> Authenticator:
    """Give somebody a passkey that they have had for a while."""
    authenticator, person = Authenticator(), world.people[name].person_id
    authenticator.create({"rp": {"id": PARTY.domain}, "user": {"id": "AA"}, "challenge": "AA"})
    (made,) = authenticator.credentials
    made.user = person.bytes
    with setting(world.db).transaction() as session:
        at = now(session)
        key = Passkey(
            id=new_id(),
            person_id=person,
            credential_id=made.id,
            public_key=cose_bytes(authenticator),
            sign_count=0,
            name="laptop",
            created_at=at,
            trusted_at=at,
        )
        key.mac = keyring.of(session).powers.mark(*row_macs.passkey(key))
        session.orm.add(key)
    return authenticator


def cose_bytes(authenticator: Authenticator) -> bytes:
    return cbor2.dumps(cose(authenticator.credentials[-1].key))


def asked(world: World, name: str, request_id: UUID, **changes: Any) -> ApprovalChallenge:
    """Return what somebody's passkey is asked for an approval."""
    with world.db.transaction() as session:
        return decide.to_sign(
            session,
            world.people[name],
            HERE,
            request_id,
            DecisionInput(Action.APPROVE, **changes),
            party=lambda: PARTY,
        )


def signed(question: ApprovalChallenge, authenticator: Authenticator, **lies: Any) -> SignedStatement:
    """Return what comes back when the authenticator has answered."""
    options = json.loads(question.question.options)
    answer = authenticator.get(options, **lies)
    return SignedStatement(question.statement, question.content, answer, question.question.challenge, PARTY)


def approve(world: World, name: str, request_id: UUID, authenticator: Authenticator, **changes: Any) -> AccessRequest:
    """Let somebody approve with their passkey."""
    said = signed(asked(world, name, request_id, **changes), authenticator)
    return world.act(name, Action.APPROVE, request_id, signed=said, **changes)
