"""The demo's mails and webhook calls as they arrive, in the terms of its stories."""

import re
from email.message import EmailMessage

from demo.evidence import DemoMail, DemoWebhookCall
from demo.story import MARK, OUT_OF_ORDER, STATUSES, SUBJECTS
from harness.webhook_receiver import Call, ScriptedAnswer, WebhookReceiver

PATH = "/demo/"


class DemoReceiver(WebhookReceiver):
    """A receiver that verifies each call, and fails at the first tries of one of them."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(path=f"{PATH}{endpoint}")
        self.endpoint = endpoint

    def answer_to(self, call: Call) -> ScriptedAnswer:
        """Answer the story's call as the story says, and all other calls as any receiver does."""
        if not call.is_signed or (self.endpoint, call.event.get("type")) != OUT_OF_ORDER:
            return super().answer_to(call)
        before = sum(one.id == call.id and one.is_signed for one in self.calls)
        return ScriptedAnswer(STATUSES[min(before, len(STATUSES) - 1)])

    @property
    def seen(self) -> list[DemoWebhookCall]:
        """The calls so far."""
        return [self._seen(call) for call in self.calls]

    def _seen(self, call: Call) -> DemoWebhookCall:
        request_id = call.event.get("data", {}).get("request_id", "")
        kind = call.event.get("type", "")
        return DemoWebhookCall(call.id, self.endpoint, kind, request_id, call.is_signed, call.status)


def mail(message: EmailMessage, at: float) -> DemoMail:
    """Return what a mail is about, and to whom it went; `at` is when it came."""
    subject = str(message["Subject"]).strip()
    told = subject.removeprefix(MARK)
    return DemoMail(
        message_id=str(message["Message-ID"]),
        request_id=str(message["In-Reply-To"]).strip("<> ").partition("@")[0],
        to=str(message["X-RcptTo"]).partition("@")[0],
        state=next((state for state, begins in SUBJECTS.items() if re.match(begins, told)), "?"),
        subject=subject,
        at=at,
    )
