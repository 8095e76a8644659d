"""Text by people that mails repeat: plain, long, right-to-left and hostile."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class WritingStyle:
    name: str
    requester: str
    actor: str
    reader: str
    tenant: str
    words: str
    case_ref: str | None
    resources: tuple[str, ...]
    user_agent: str
    manager: str = ""
    zone: str = "Europe/Berlin"
    comments: Mapping[str, str] = field(default_factory=dict)


PLAIN = WritingStyle(
    name="plain",
    requester="Erin Engineer",
    actor="Amir Approver",
    manager="Max Manager",
    reader="Ann Approver",
    tenant="Contoso",
    words="The mailbox does not open since the last update, and Anna has a deadline on Thursday.",
    case_ref="CASE-4711",
    resources=("mailbox:anna@contoso.example", "mailbox:bob@contoso.example"),
    user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0",
    comments={
        "active": "Tell Anna when you are done.",
        "denied": "Anna's mailbox is on legal hold. Submit it again without hers.",
        "question": "Which of the two mailboxes do you need first?",
        "answer": "Anna's. Bob's can wait until tomorrow.",
        "report": "GET /mailboxes",
        "break_glass": "Mail is down for all of Contoso since 09:10, and nobody there can be reached.",
        "after_review": "Ann was on call and could have been asked.",
    },
)
LONG = WritingStyle(
    name="long",
    requester="Wolfeschlegelsteinhausenbergerdorff " * 6,
    actor="M" * 200,
    reader="Ann-Sophie-Charlotte " * 10,
    tenant="C" * 200,
    words="W" * 1000 + " " + "It does not open. " * 160,
    case_ref="C" * 100,
    resources=tuple(f"mailbox:{'a' * 200}-{number}@contoso.example" for number in range(20)),
    user_agent="U" * 256,
    zone="America/Argentina/ComodRivadavia",
)
RIGHT_TO_LEFT = WritingStyle(
    name="right-to-left",
    requester="\u05d0\u05e8\u05d9\u05df \u05de\u05d4\u05e0\u05d3\u05e1\u05ea",
    actor="\u0623\u0645\u064a\u0631 \u0627\u0644\u0645\u0648\u0627\u0641\u0642",
    reader="\u05e2\u05e0\u05ea \u05d4\u05de\u05d0\u05e9\u05e8\u05ea",
    tenant="Contoso",
    words="\u062a\u0639\u0630\u0631 \u0641\u062a\u062d \u0635\u0646\u062f\u0648\u0642 "
    "\u0627\u0644\u0628\u0631\u064a\u062f (CASE-4711) "
    "\u05d0\u05d9\u05df \u05d2\u05d9\u05e9\u05d4 \u05dc\u05ea\u05d9\u05d1\u05d4.",
    case_ref="\u062d\u0627\u0644\u0629-4711",
    resources=("mailbox:\u05d0\u05e0\u05d4@contoso.example",),
    user_agent="\u05d3\u05e4\u05d3\u05e4\u05df/1",
    zone="Asia/Jerusalem",
)
HTML = '<script>alert(1)</script><img src="https://evil.example/x" onerror="x">"\'&{{7*7}}{% raw %}'
BREAKS = (
    "Erin\r\nBcc: everyone@contoso.example\r\n\r\n<h1>Approve</h1>\u202egnp.exe\u2066"
    "\u2028Request          0\x1b[31m\x00"
)
HOSTILE = WritingStyle(
    name="hostile",
    requester=BREAKS,
    actor=HTML + BREAKS,
    reader=BREAKS,
    tenant=HTML[:200],
    words=f"{HTML}\r\nAnswer by        never\r\n.\r\nTo decide, sign in at evil.example {BREAKS}",
    case_ref=HTML[:100],
    resources=(HTML, "</td></table><a href=evil>mailbox</a>"),
    user_agent=f"{HTML}\r\nX: y",
    zone="../../etc/passwd",
)
STYLES = (PLAIN, LONG, RIGHT_TO_LEFT, HOSTILE)
