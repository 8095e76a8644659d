"""How a terminal shows requests, their timelines and previews; each state has one wording and one colour."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

from cli import terminal
from cli.terminal import NOTHING, duration, moment, words
from lockbox.notifications.mail_text import NOBODY_NOTIFIED, STATE_WORDINGS, Tone
from lockbox.text_rules import flagged

MAIL_OUTCOMES = {"dead": "not delivered to", "open": "still open to", "moot": "not needed by", "sent": "mailed to"}
NOBODYS = {"owner": "the installation's owner"}
COLOURS = {
    Tone.WAITS: "yellow",
    Tone.OPEN: "green",
    Tone.REFUSED: "red",
    Tone.GIVEN_BACK: "cyan",
    Tone.LAPSED: "bright_black",
}
WORDS = {
    name: (wording.others, COLOURS[wording.tone])
    for name, wording in STATE_WORDINGS.items()
    if name != NOBODY_NOTIFIED
}
"""The words for each state and their colour; a terminal does not know who reads it."""


def state(request: Mapping[str, Any]) -> Text:
    """Return the state in people's words and its colour."""
    shown, colour = WORDS[request["state"]]
    until = f" until {moment(request['deadline_at'])}" if request["open"] else ""
    return Text(f"{shown}{until}", colour)


def show_list(items: Iterable[Mapping[str, Any]]) -> None:
    """Print requests as a table."""
    rows = (
        (
            item["id"],
            state(item),
            f"{item['tenant']} {item['service']}",
            item["requester"]["name"],
            moment(item["deadline_at"]),
        )
        for item in items
    )
    terminal.table(("Request", "State", "Service", "Requester", "Deadline"), rows)


def show_one(item: Mapping[str, Any]) -> None:
    """Print one request; readers whom the justification is not meant for see none."""
    why = words(item["reason_code"])
    terminal.facts(
        {
            "Request": item["id"],
            "State": state(item),
            "Requester": item["requester"]["name"],
            "Customer": item["tenant"],
            "Service": item["service"],
            "Resources": ", ".join(map(flagged, item["resources"])),
            "Actions": ", ".join(item["actions"]),
            "Reason": f"{why}: {item['justification']}" if item["justification"] else why,
            "Case": item["case_ref"],
            "Window": duration(item["access_window"]),
            **({"Uses": f"{item['uses_left']} of {item['max_uses']} left"} if item["max_uses"] else {}),
            "Deadline": moment(item["deadline_at"]),
            "Version": item["version"],
            **_shown_where_there(item),
        }
    )


def _moves(moves: Sequence[Mapping[str, Any]]) -> str:
    """Return the moves that the reader may make now."""
    return ", ".join(words(one["action"]) for one in moves if one["allowed"])


def _shown_where_there(item: Mapping[str, Any]) -> dict[str, str]:
    """Return what only some requests have: answers, who could not be reached, and what asks again for what."""
    found = {
        "Granted": _granted(item),
        "Decisions": "\n".join(map(_answer, item.get("decisions") or ())),
        "Reached": (item.get("reach") or {}).get("sentence"),
        "Resubmits": item["follows"],
        "Resubmitted as": item.get("followed_by"),
        "Your actions": _moves(item.get("available_moves") or ()),
    }
    return {name: value for name, value in found.items() if value}


def _granted(item: Mapping[str, Any]) -> str:
    """Return what a window was opened for, where that is less than was asked."""
    granted = [(item.get(f"granted_{name}"), item[name]) for name in ("actions", "resources")]
    if all(found in (None, asked) for found, asked in granted):
        return ""
    actions, resources = (", ".join(found or asked) for found, asked in granted)
    return f"{actions} in {resources}"


def _answer(decision: Mapping[str, Any]) -> str:
    """Return who gave an answer, for whom else, and by what means."""
    who = f"{decision['by']['name']} ({words(decision['role'])}){_for_others(decision)}"
    return f"{decision['decision']}{_by_means(decision)}: {who}"


def _for_others(item: Mapping[str, Any]) -> str:
    """Return for whom a delegate or a system acted."""
    people = [one["name"] for one in item["principals"] or [item["on_behalf_of"]] if one]
    return f" for {', '.join(people)}" if people else ""


def _by_means(item: Mapping[str, Any]) -> str:
    """Return by what whoever decided had shown who they are."""
    return f" by {words(item['means'])}" if item["means"] else ""


def show_events(items: Iterable[Mapping[str, Any]]) -> None:
    """Print a timeline."""
    rows = (
        (
            item["seq"],
            moment(item["at"]),
            f"{_actor(item)}{_for_others(item)}",
            words(item["role"]),
            f"{words(item['action'])}{_by_means(item)}",
            f"{item['from_state'] or NOTHING} → {item['to_state'] or NOTHING}",
            moment(item["deadline_at"]),
            item["comment"] or Text(_beside(item)),
        )
        for item in items
    )
    terminal.table(("#", "Time", "Who", "Role", "Action", "State", "Deadline", "Comment"), rows)


def _actor(item: Mapping[str, Any]) -> str:
    """Return who did it: a person, or one of those who are none."""
    return item["actor"]["name"] if item["actor"] else NOBODYS.get(item["role"], "the clock")


def _beside(item: Mapping[str, Any]) -> str:
    """Return what an entry says about the delivery of notifications."""
    if notified := item["notified"]:
        return _told(notified)
    if item["nobody_notified"]:
        return f"nobody could be notified: none of {item['asked']} was reached"
    if item["asked"] is not None:
        return f"{item['reached']} of {item['asked']} were reached"
    return f"none of {item['unreached']} could be reached" if item["unreached"] is not None else ""


def _told(notified: Mapping[str, Any]) -> str:
    """Return who got a mail about a move, and who did not."""
    by_outcome = {
        outcome: ", ".join(one["name"] for one in notified["recipients"] if one["outcome"] == outcome)
        for outcome in MAIL_OUTCOMES
    }
    of = f"#{notified['of_seq']} " if notified["of_seq"] else ""
    said = "; ".join(f"{MAIL_OUTCOMES[outcome]} {whom}" for outcome, whom in by_outcome.items() if whom)
    return f"{of}{said}" + (f"; and {notified['not_listed']} more" if notified["not_listed"] else "")


def show_activity(items: Sequence[Mapping[str, Any]]) -> None:
    """Print the activity during access."""
    if not items:
        terminal.say("No activity was reported.")
        return
    rows = (
        (
            moment(item["first_at"]),
            moment(item["last_at"]),
            item["count"],
            item["method"],
            item["resource"] or "erased",
            item["outcome"],
            "" if item["as_asked"] else "outside the request",
        )
        for item in items
    )
    terminal.table(("From", "Until", "Times", "Method", "Resource", "Outcome", "Note"), rows)


def show_questions(items: Sequence[Mapping[str, Any]]) -> None:
    """Print questions, each with its answer."""
    if not items:
        terminal.say("There are no questions.")
        return
    rows = (
        (
            item["id"],
            moment(item["asked_at"]),
            item["asked_by"]["name"],
            item["question"] or NOTHING,
            moment(item["answered_at"]) if item["answered_at"] else "not yet",
            item["answer"] or NOTHING,
        )
        for item in items
    )
    terminal.table(("Id", "Time", "Who", "Question", "Answered", "Answer"), rows)


def show_preview(found: Mapping[str, Any]) -> None:
    """Print the preview of a request."""
    terms = found["terms"]
    stages = (f"{one['approvals']} of {one['group']} ({', '.join(one['people'])})" for one in found["stages"])
    terminal.facts(
        {
            "Can be submitted": found["can_be_submitted"],
            "Obstacles": "\n".join([*found["obstacles"], *(lack["message"] for lack in found["lacks"])]),
            "First state": WORDS[found["first_state"]][0],
            "Mode": found["mode"],
            "Policy": f"version {found['policy_version']}",
            "Reviewed by": ", ".join(found["reviewers"]),
            "Reviewers asked first": ", ".join(found["reviewers_asked_first"]),
            "Asked first": ", ".join(found["asked_first"]),
            "Could approve": ", ".join(found["could_approve"]),
            "Notified first": ", ".join(_counted(one["name"], one["mailboxes"]) for one in found["notified_first"]),
            "Webhooks": found["endpoints"],
            "Approvals": terms["quorum"],
            "Also required": "\n".join(stages),
            "Time to review": duration(terms["review_window"]),
            "Time to answer": duration(terms["approval_window"]),
            "Longest window": duration(terms["access_ceiling"]),
        }
    )


def show_what_if(found: Mapping[str, Any]) -> None:
    """Print whom a request would reach, and where, to the tenant's own people."""
    terms = found["terms"]
    stages = (f"{one['approvals']} of {one['group']} ({', '.join(one['people'])})" for one in found["stages"])
    terminal.facts(
        {
            "Warnings": "\n".join(found["warnings"]),
            "First state": WORDS[found["first_state"]][0],
            "Mode": found["mode"],
            "Policy": f"version {found['policy_version']}",
            "Reviewed by": f"{found['reviewers']} of the vendor" if found["reviewers"] else "",
            "Notified first": "\n".join(map(_mailed, found["notified_first"])),
            "Could approve": ", ".join(found["could_approve"]),
            "Prompts turned off": ", ".join(found["quiet"]),
            "Observers": "\n".join(map(_mailed, found["copied"])),
            "Webhooks": ", ".join(found["endpoints"]),
            "Approvals": terms["quorum"],
            "Also required": "\n".join(stages),
            "Time to answer": duration(terms["approval_window"]),
        }
    )


def _mailed(one: Mapping[str, Any]) -> str:
    return f"{one['name']} ({', '.join(one['addresses'])})"


def _counted(name: str, mailboxes: int) -> str:
    return name if mailboxes == 1 else f"{name} ({mailboxes} mailboxes)"


def show_notifications(found: Mapping[str, Any]) -> None:
    """Print who was notified, and the other side in numbers."""
    rows = (
        (
            one["recipient"],
            one["address"],
            one["channel"],
            words(one["template"]),
            one["outcome"],
            one["attempts"],
            one["last_error"],
        )
        for one in found["own"]
    )
    terminal.table(("Recipient", "Address", "Channel", "Template", "Outcome", "Attempts", "Last error"), rows)
    terminal.say("The other side: " + ", ".join(f"{number} {outcome}" for outcome, number in found["other"].items()))


def show_connections(items: Sequence[Mapping[str, Any]]) -> None:
    """Print what is, or was, opened at targets for a request."""
    rows = (
        (
            item["id"],
            item["target"],
            item["state"],
            item["failing"],
            item["opened_at"] and moment(item["opened_at"]),
            item["closed_at"] and moment(item["closed_at"]),
        )
        for item in items
    )
    terminal.table(("ID", "Target", "State", "Failing", "Opened", "Closed"), rows)


def show_credential(item: Mapping[str, Any], password: str) -> None:
    """Print a login at a target, and what to do where it is not good yet."""
    at = {"Address": item["address"], "User": item["role"], "Password": password, "Until": moment(item["until"])}
    terminal.facts({"State": item["state"], **at})
    if item["state"] != "open":
        failing = f" ({item['failing']})" if item["failing"] else ""
        terminal.say(f"It is not good yet{failing}: look with `lockbox request connections`, and keep the password.")
