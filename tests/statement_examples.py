"""Requests whose approval is signed in format 2, and each way in which one can be malformed; also as export files.

`python -m tests.statement_examples` rewrites the files; they may change only together with the format.
"""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from harness.authenticator import Authenticator, Credential, decoded
from lockbox.audit.canonical import canonical, commitment
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier import approver_keys
from lockbox.audit.verifier.approval_checks import NAME
from lockbox.audit.verifier.approver_keys import ApproverKey, ApproverKeys
from lockbox.audit.verifier.passkey_assertion import Assertion, fingerprint
from tests.logs import SALT, TENANT, Log, SealedEvent, event, line, public

FOLDER = Path(__file__).parent / "golden" / "statement-2"
SIGNER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
REQUEST, ENGINEER, ANN, BOT, OTHER = (f"00000000-0000-0000-0000-00000000000{digit}" for digit in "abcde")
OPENED, UNTIL = "2026-01-01T00:00:02.000000Z", "2026-01-01T08:00:00.000000Z"
RESOURCES = ["mailbox:anna@contoso.example"]
PERSONAL = {
    "resources": json.dumps(RESOURCES),
    "act_as": "anna@contoso.example",
    "call_arguments": '{"limit":10,"mailbox":"anna@contoso.example"}',
}
ACT_AS, ARGUMENTS = (commitment(SALT, PERSONAL[name]) for name in ("act_as", "call_arguments"))
PROCESSOR = '{"company":"Models Ltd","countries":["DE","FR"],"keeps":"no","version":3}'
AGENT = {"id": BOT, "name": "Triage bot", "owner": ENGINEER, "processor": PROCESSOR}
TOOL = hashlib.sha256(b"the definition of read_mailbox").hexdigest()
CALL = {"service": "exchange", "tool": "read_mailbox", "tool_sha256": TOOL, "commitment": ARGUMENTS}
ALL: dict[str, Any] = {"act_as": ACT_AS, "agent": AGENT, "call": CALL}
ASKED: dict[str, Any] = {"service": "exchange", "actions": ["read"], "mode": "enforce", "policy_version": 3}
KEY = ec.derive_private_key(7, ec.SECP256R1())
PASSKEY = Authenticator(counts=False, credentials=[Credential(b"credential", KEY, "lockbox.example", b"ann")])
PUBLIC = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
FILE = ApproverKeys(
    str(TENANT), "lockbox.example", "https://lockbox.example", OPENED, (ApproverKey(ANN, "Ann", PUBLIC, OPENED),)
)
KEY_OF_APPROVALS = VerifierKey(NAME, SIGNER.public_key().public_bytes_raw())
KEY_ID = KEY_OF_APPROVALS.id.hex()
ABSENT: Any = object()


def given(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the facts without those that are absent."""
    return {name: value for name, value in facts.items() if value is not ABSENT}


def of_format_2(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: facts[name] for name in ALL if name in facts}


def format_of(kind: str, facts: dict[str, Any]) -> str:
    return f"{kind} {2 if of_format_2(facts) else 1}"


@dataclass
class StatementExample:
    """A request and its approval, as an honest vendor writes them apart from the changes; the result is signed.

    `members` are the format 2 members of the request. The rest are changes: to the first move, to the approval, and
    to what is signed over the approval. `committed` are the personal values of the first move. Without `is_signed`,
    only the server attests the approval. `is_reviewed` is whether the vendor reviewed the request first.
    """

    members: dict[str, Any] = field(default_factory=lambda: ALL)
    first: dict[str, Any] = field(default_factory=dict)
    opening: dict[str, Any] = field(default_factory=dict)
    decision: dict[str, Any] = field(default_factory=dict)
    statement: dict[str, Any] = field(default_factory=dict)
    signed: dict[str, Any] = field(default_factory=dict)
    approval: dict[str, Any] = field(default_factory=dict)
    committed: dict[str, str] | None = None
    is_signed: bool = True
    is_reviewed: bool = False
    is_erased: bool = False
    is_filtered: bool = False

    @property
    def export(self) -> bytes:
        log = Log([SealedEvent(one.body, {}) if self.is_erased else one for one in self.events])
        return log.filtered(lambda _: True) if self.is_filtered else log.whole()

    @property
    def events(self) -> list[SealedEvent]:
        """The first move of the request, and the move that opens its window."""
        has = {"resources", *self.members, *({"call_arguments"} if "call" in self.members else ())}
        personal = {name: value for name, value in PERSONAL.items() if name in has}
        begins: dict[str, Any] = {**ASKED, "access_window": 28_800}
        facts: dict[str, Any] = {"actor_id": ENGINEER, "on_behalf_of": None, **begins}
        if self.is_reviewed:
            facts = {"actor_id": OTHER, "action": "endorse", "submission": begins | {"engineer": ENGINEER}}
        facts |= {
            "request_id": REQUEST,
            "seq": 1 + self.is_reviewed,
            "max_uses": 1 if "call" in self.members else ABSENT,
        }
        first = event(
            0, personal if self.committed is None else self.committed, **given(facts | self.members | self.first)
        )
        return [first, self._approved(ASKED | {name: self.first[name] for name in ASKED if name in self.first})]

    def _approved(self, asked: dict[str, Any]) -> SealedEvent:
        facts: dict[str, Any] = {"action": "approve", "side": "customer", "to_state": "active", "actor_id": ANN}
        facts |= {"at": OPENED, "deadline_at": UNTIL, "approved_by": [ANN], "policy_version": 3}
        facts |= {
            "request_id": REQUEST,
            "seq": 2 + self.is_reviewed,
            "max_uses": 1 if "call" in self.members else ABSENT,
        }
        facts = given(facts | self.members | self.opening)
        personal = {"name": "Ann"}
        if self.is_signed:
            content = canonical({"comment": None, "resources": RESOURCES, "salt": "00" * 16}).decode()
            personal["signed_content"] = content
            facts |= self._proof(self._decision(facts, asked, content))
        return event(1, personal, approval=self._approval(facts, asked), **facts)

    def _decision(self, facts: dict[str, Any], asked: dict[str, Any], content: str) -> bytes:
        said = {
            "format": format_of("lockbox decision", facts),
            "action": "approve",
            "request_id": REQUEST,
            "tenant_id": str(TENANT),
            "version": facts["seq"] - 1,
            "approver": ANN,
            "principals": [],
            "engineer": ENGINEER,
            "access_window": 28_800,
            "content": hashlib.sha256(content.encode()).hexdigest(),
            "issued_at": "2026-01-01T00:00:01.500000Z",
            **asked,
        }
        return canonical(given(said | of_format_2(facts) | self.decision))

    def _proof(self, said: bytes) -> dict[str, Any]:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(said).digest()).rstrip(b"=").decode()
        answer = json.loads(PASSKEY.get({"challenge": challenge}))["response"]
        data, client, signature = (
            decoded(answer[name]) for name in ("authenticatorData", "clientDataJSON", "signature")
        )
        made = Assertion(data, client, signature, fingerprint(PUBLIC)).facts
        both = {"approve_means": "passkey-signed", "proof": "passkey-signed"}
        return {**both, "decision": said.decode(), "assertion": made}

    def _approval(self, facts: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
        window = {"request_id": REQUEST, "tenant_id": str(TENANT), "opened_at": OPENED, "until": facts["deadline_at"]}
        window |= {"by": facts["approved_by"], **of_format_2(facts)}
        beside = {name: facts[name] for name in ("max_uses", "break_glass") if name in facts}
        said = {"format": format_of("lockbox approval", facts), "engineer": ENGINEER, "resources": RESOURCES}
        hashed = hashlib.sha256(canonical(given(window | said | asked | beside | self.statement))).hexdigest()
        form = format_of("lockbox signed approval", facts)
        signed = canonical(given(window | {"format": form, "statement": hashed} | self.signed))
        made = {"statement": hashed, "signature": base64.b64encode(SIGNER.sign(signed)).decode(), "key": KEY_ID}
        return given(made | ({"format": form} if form.endswith("2") else {}) | self.approval)


AGENT_ALONE: dict[str, Any] = {"agent": AGENT}
CALL_ALONE: dict[str, Any] = {"call": CALL}
ACT_AS_ALONE: dict[str, Any] = {"act_as": ACT_AS}
VALID: dict[str, StatementExample] = {
    "all": StatementExample(),
    "act-as": StatementExample(ACT_AS_ALONE),
    "agent": StatementExample(AGENT_ALONE),
    "call": StatementExample(CALL_ALONE),
    "none": StatementExample({}),
    "attested": StatementExample(is_signed=False),
    "reviewed": StatementExample(is_reviewed=True),
    "erased": StatementExample(is_erased=True),
    "filtered": StatementExample(is_filtered=True),
    "longest": StatementExample({"agent": AGENT | {"name": "é" * 2048}}),
}
NO_FORM, ELSEWHERE, UNLIKE = "is missing or malformed", "than was asked for", "another format than"
NOT_AGREED, NOT_SIGNED = "does not match the request's events", "the signature of the approval is wrong"
MALFORMED: dict[str, tuple[StatementExample, str]] = {
    # The format does not fit the members, or is none.
    "signed-in-format-1": (StatementExample(signed={"format": "lockbox signed approval 1"}), NOT_SIGNED),
    "signed-in-format-3": (StatementExample(approval={"format": "lockbox signed approval 3"}), UNLIKE),
    "signed-in-format-1-by-name": (StatementExample({}, approval={"format": "lockbox signed approval 1"}), UNLIKE),
    "signed-without-its-format": (StatementExample(approval={"format": ABSENT}), UNLIKE),
    "signed-in-format-2-without-members": (
        StatementExample({}, approval={"format": "lockbox signed approval 2"}),
        UNLIKE,
    ),
    "statement-in-format-1": (StatementExample(statement={"format": "lockbox approval 1"}), NOT_AGREED),
    "statement-in-format-2-without-members": (
        StatementExample({}, statement={"format": "lockbox approval 2"}),
        NOT_AGREED,
    ),
    "decision-in-format-1": (StatementExample(decision={"format": "lockbox decision 1"}), UNLIKE),
    "decision-in-format-2-without-members": (
        StatementExample({}, decision={"format": "lockbox decision 2"}),
        UNLIKE,
    ),
    "decision-in-format-3": (StatementExample(decision={"format": "lockbox decision 3"}), UNLIKE),
    "all-in-format-1": (
        StatementExample(
            AGENT_ALONE,
            decision={"format": "lockbox decision 1", "agent": ABSENT},
            statement={"format": "lockbox approval 1", "agent": ABSENT},
            signed={"format": "lockbox signed approval 1", "agent": ABSENT},
            approval={"format": ABSENT},
        ),
        UNLIKE,
    ),
    # What is signed has other members than the move.
    "decision-in-format-1-with-a-member": (StatementExample({}, decision=AGENT_ALONE), "the statement is malformed"),
    "decision-with-an-unknown-member": (StatementExample(decision={"more": "x"}), "the statement is malformed"),
    "decision-with-null": (StatementExample(AGENT_ALONE, decision={"call": None}), "the statement is malformed"),
    "decision-without-a-member": (StatementExample(decision={"call": ABSENT}), "the statement is malformed"),
    "decision-of-another-call": (
        StatementExample(decision={"call": CALL | {"commitment": "0" * 64}}),
        "another call than the log",
    ),
    "signed-without-a-member": (StatementExample(signed={"agent": ABSENT}), NOT_SIGNED),
    "signed-with-null": (StatementExample(AGENT_ALONE, signed={"act_as": None}), NOT_SIGNED),
    "statement-without-a-member": (StatementExample(statement={"act_as": ABSENT}), NOT_AGREED),
    "statement-of-another-agent": (StatementExample(statement={"agent": AGENT | {"id": OTHER}}), NOT_AGREED),
    # The move says something else than the one with which the request begins.
    "opened-for-another-agent": (StatementExample(opening={"agent": AGENT | {"id": OTHER}}), ELSEWHERE),
    "opened-for-another-call": (StatementExample(opening={"call": CALL | {"tool_sha256": "0" * 64}}), ELSEWHERE),
    "opened-for-another-user": (StatementExample(opening={"act_as": "0" * 64}), ELSEWHERE),
    "opened-for-a-person": (StatementExample(opening={"agent": ABSENT}), ELSEWHERE),
    "opened-for-an-agent": (StatementExample({}, opening=AGENT_ALONE), ELSEWHERE),
    "opened-for-another-agent-and-erased": (
        StatementExample(opening={"agent": AGENT | {"id": OTHER}}, is_erased=True),
        ELSEWHERE,
    ),
    # The first move does not commit to what it says.
    "another-user-committed-to": (
        StatementExample(ACT_AS_ALONE, committed=PERSONAL | {"act_as": "boss@contoso.example"}),
        "the user to act as is not",
    ),
    "a-user-committed-to-and-not-said": (
        StatementExample({}, committed={name: PERSONAL[name] for name in ("resources", "act_as")}),
        "the user to act as is not",
    ),
    "other-arguments-committed-to": (
        StatementExample(CALL_ALONE, committed={"resources": PERSONAL["resources"], "call_arguments": "{}"}),
        "the call's arguments are not",
    ),
    "no-arguments-committed-to": (
        StatementExample(CALL_ALONE, committed={"resources": PERSONAL["resources"]}),
        "the call's arguments are not",
    ),
    "call-of-another-service": (StatementExample({"call": CALL | {"service": "files"}}), "of another service"),
    # The window is not one for such a request.
    "call-for-two-uses": (StatementExample(first={"max_uses": 2}, opening={"max_uses": 2}), "not for one use"),
    "call-for-any-uses": (
        StatementExample(first={"max_uses": ABSENT}, opening={"max_uses": ABSENT}),
        "not for one use",
    ),
    "act-as-without-an-approver": (
        StatementExample(
            ACT_AS_ALONE,
            first={"mode": "observe"},
            opening={"action": "endorse", "side": "vendor", "actor_id": OTHER, "approved_by": []},
            is_signed=False,
        ),
        "no approver's approval does",
    ),
    "agent-by-break-glass": (
        StatementExample(
            AGENT_ALONE,
            first={"break_glass": True},
            opening={
                "action": "break_glass",
                "break_glass": True,
                "side": "vendor",
                "actor_id": OTHER,
                "approved_by": [OTHER],
                "deadline_at": "2026-01-01T01:00:00.000000Z",
            },
            is_signed=False,
        ),
        "break-glass opens a window for",
    ),
}
ODD_TEXTS: dict[str, Any] = {"null": None, "a-number": 1, "a-list": ["x"], "empty": ""}
ODD_MEMBERS: dict[str, dict[str, Any]] = {
    **{f"act-as-{name}": {"act_as": odd} for name, odd in ODD_TEXTS.items()},
    "act-as-in-clear": {"act_as": "anna@contoso.example"},
    "act-as-in-capitals": {"act_as": ACT_AS.upper()},
    **{f"agent-{name}": {"agent": odd} for name, odd in ODD_TEXTS.items()},
    **{f"agent-without-{part}": {"agent": {k: v for k, v in AGENT.items() if k != part}} for part in AGENT},
    **{f"agent-{part}-{name}": {"agent": AGENT | {part: odd}} for part in AGENT for name, odd in ODD_TEXTS.items()},
    "agent-with-another-member": {"agent": AGENT | {"model": "x"}},
    "agent-id-in-another-form": {"agent": AGENT | {"id": BOT.replace("-", "")}},
    "agent-owner-in-capitals": {"agent": AGENT | {"owner": ENGINEER.upper()}},
    "agent-name-too-long": {"agent": AGENT | {"name": "é" * 2048 + "e"}},
    "agent-processor-too-long": {"agent": AGENT | {"processor": "x" * 4097}},
    **{f"call-{name}": {"call": odd} for name, odd in ODD_TEXTS.items()},
    **{f"call-without-{part}": {"call": {k: v for k, v in CALL.items() if k != part}} for part in CALL},
    **{f"call-{part}-{name}": {"call": CALL | {part: odd}} for part in CALL for name, odd in ODD_TEXTS.items()},
    "call-with-another-member": {"call": CALL | {"arguments": "{}"}},
    "call-tool-sha256-too-short": {"call": CALL | {"tool_sha256": TOOL[1:]}},
    "call-tool-sha256-in-capitals": {"call": CALL | {"tool_sha256": TOOL.upper()}},
    "call-tool-too-long": {"call": CALL | {"tool": "x" * 4097}},
}
KEPT_ODD = (
    "act-as-in-clear",
    "act-as-null",
    "agent-a-list",
    "agent-without-processor",
    "agent-with-another-member",
    "agent-name-empty",
    "agent-name-too-long",
    "agent-owner-in-capitals",
    "call-null",
    "call-without-commitment",
    "call-with-another-member",
    "call-tool-a-number",
    "call-tool-sha256-too-short",
)
"""Those of them that are files too."""


def malformed(odd: dict[str, Any]) -> StatementExample:
    """Return a request with a malformed member, the same in all its moves and in all that is signed."""
    return StatementExample(ALL | odd, committed=PERSONAL)


def files() -> dict[str, bytes]:
    refused = {name: example for name, (example, _) in MALFORMED.items()}
    refused |= {name: malformed(ODD_MEMBERS[name]) for name in KEPT_ODD}
    exports = {f"valid-{name}.ndjson": example.export for name, example in VALID.items()}
    exports |= {f"malformed-{name}.ndjson": example.export for name, example in refused.items()}
    keys = "".join(f"{key.text}\n" for key in (public(), KEY_OF_APPROVALS)).encode()
    return exports | {"keys.txt": keys, "approver-keys.json": line(approver_keys.document(FILE))}


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.iterdir():
        path.unlink()
    for name, content in files().items():
        (FOLDER / name).write_bytes(content)
