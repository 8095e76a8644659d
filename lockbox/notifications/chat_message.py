"""Messages in Slack's block format, for webhooks of the format `slack`."""

from collections.abc import Mapping
from typing import Any

from lockbox.facts import fact
from lockbox.facts.fact import CHAT
from lockbox.identity.time_zones import clock_time
from lockbox.notifications import account_mail, chat_text, mail_text, request_wording
from lockbox.notifications.account_mail import AccountMail
from lockbox.notifications.request_mail import RequestMail, portal_address
from lockbox.text_rules import mixed, one_line

MOST_WORDS = 1500


def of_request(
    mail: RequestMail, justification: str | None, *, public_url: str, services: Mapping[str, str]
) -> dict[str, Any]:
    service = services.get(mail.ask.service, mail.ask.service)
    said = _sentence(mail).format(service=_plain(one_line(service)), tenant=_plain(one_line(mail.tenant)))
    lines = [said]
    if (did := chat_text.CHAT_BY.get(mail.event_type)) and mail.actor_name:
        lines.append(chat_text.CHAT_ACTOR.format(did=did, name=_plain(one_line(mail.actor_name))))
    if mail.opens_later and mail.window.opens_at:
        lines.append(chat_text.CHAT_DEADLINE.format(what=chat_text.CHAT_OPENS, time=clock_time(mail.window.opens_at)))
    if mail.held_back:
        lines.append(request_wording.held_back(mail.held_back, tenant=_plain(one_line(mail.tenant))))
    elif (what := chat_text.CHAT_DEADLINES.get(mail.to_state)) and mail.deadline_at:
        lines.append(chat_text.CHAT_DEADLINE.format(what=what, time=clock_time(mail.deadline_at)))
    told = fact.lines(mail.ask, CHAT, reads_why=justification is not None)
    lines += (chat_text.CHAT_FACT.format(label=label, text=_plain(text)) for label, text in told)
    if mixed(mail.resources):
        lines.append(chat_text.CHAT_MIXED)
    if justification is not None:
        lines.append(chat_text.CHAT_WHY.format(why=_plain(" ".join(justification.split())))[:MOST_WORDS])
    lines.append(chat_text.CHAT_SOURCE.format(time=clock_time(mail.at), number=mail.request_id))
    return _message(said, "\n".join(lines), portal_address(public_url, mail.request_id), chat_text.CHAT_OPEN)


def of_account(mail: AccountMail, *, public_url: str, services: Mapping[str, str]) -> dict[str, Any]:
    title = mail_text.ACCOUNT_TITLES[mail.template].format(tenant=one_line(mail.tenant or "")).strip()
    changes = account_mail.worded_changes(mail, services=services)
    lines = [f"{_plain(name)}: {_plain(change)}" for name, change in changes.items()]
    words = "\n".join([f"*{_plain(title)}*", *lines])[:MOST_WORDS]
    return _message(title, words, f"{public_url.rstrip('/')}/sign-in", chat_text.CHAT_SIGN_IN)


def of_test() -> dict[str, Any]:
    return {"text": chat_text.CHAT_TEST, "blocks": [_section(chat_text.CHAT_TEST)]}


def _sentence(mail: RequestMail) -> str:
    if mail.nobody_notified:
        return chat_text.CHAT_NOBODY_NOTIFIED
    if mail.event_type == "request.approved" and mail.to_state == "pending":
        return chat_text.CHAT_VOTE
    if mail.to_state == "active" and mail.opens_later:
        return chat_text.CHAT_OPENS_LATER
    said = chat_text.CHAT_SENTENCES.get(mail.event_type) or chat_text.CHAT_STATES[mail.to_state]
    return chat_text.CHAT_STARTS.get(mail.event_type, "") + said


def _message(summary: str, words: str, address: str, label: str) -> dict[str, Any]:
    button = {"type": "button", "text": {"type": "plain_text", "text": label}, "url": address}
    return {"text": summary, "blocks": [_section(words), {"type": "actions", "elements": [button]}]}


def _section(words: str) -> dict[str, Any]:
    return {"type": "section", "text": {"type": "mrkdwn", "text": words}}


def _plain(words: str) -> str:
    """Escape text, so that it holds no links, mentions or commands."""
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
