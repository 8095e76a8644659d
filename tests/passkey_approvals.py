"""Approvals signed by passkeys, for tests: a person's authenticator, what it is asked to sign, and its answer."""

import json
from typing import Any
from uuid import UUID

import cbor2

from harness import authenticator
from harness.authenticator import Authenticator, cose
from harness.people import HERE, World, decision_input
from harness.stage import setting
from lockbox.facts.enumerations import ApproveMeans
from lockbox.identity.passkeys import RelyingParty
from lockbox.requests import decide
from lockbox.requests.approvals import ApprovalChallenge, SignedStatement
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy

PARTY = RelyingParty("lockbox.example", "https://lockbox.example")
DEMANDED = Policy(vendor_review=False, approve_means=ApproveMeans.PASSKEY_SIGNED)


def enrol(world: World, name: str) -> Authenticator:
    """Give a person a passkey that counts as added long ago."""
    return authenticator.enrol(setting(world.db), world.people[name].person_id, PARTY)


def cose_bytes(authenticator: Authenticator) -> bytes:
    return cbor2.dumps(cose(authenticator.credentials[-1].key))


def asked(world: World, name: str, request_id: UUID, **changes: Any) -> ApprovalChallenge:
    with world.db.transaction() as session:
        return decide.to_sign(
            session,
            world.people[name],
            HERE,
            request_id,
            decision_input(Action.APPROVE, **changes),
            party=lambda: PARTY,
        )


def signed(question: ApprovalChallenge, authenticator: Authenticator, **lies: Any) -> SignedStatement:
    options = json.loads(question.question.options)
    answer = authenticator.get(options, **lies)
    return SignedStatement(question.statement, question.content, answer, question.question.challenge, PARTY)


def approve(world: World, name: str, request_id: UUID, authenticator: Authenticator, **changes: Any) -> AccessRequest:
    said = signed(asked(world, name, request_id, **changes), authenticator)
    return world.act(name, Action.APPROVE, request_id, signed=said, **changes)
