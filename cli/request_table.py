"""Show requests and their events in the terminal."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from cli.terminal import Facts, Listing, Part
from cli.values import LOOK_ALIKES, NOTHING, Duration, Identifier, Phrase, Word, moment, phrase, words
from lockbox.notifications import request_wording
from lockbox.notifications.mail_text import (
    BREAK_GLASS_MARK,
    CASE_CHECKS,
    NOBODY_NOTIFIED,
    OUTLIVED,
    STATE_WORDINGS,
    Tone,
    parameters,
)
from lockbox.text_rules import flagged

MAIL_OUTCOMES = {"dead": "not delivered to", "open": "still open to", "moot": "not needed by", "sent": "mailed to"}
NOBODYS = {"owner": "the installation's owner"}
COLOURS = {
    Tone.WAITS: "bold",
    Tone.OPEN: "black on green",
    Tone.REFUSED: "red",
    Tone.GIVEN_BACK: "",
    Tone.LAPSED: "",
}
"""Yellow, cyan and green letters are not used, because they are hard to read on white. Bright black is not used,
because it is the background of some dark schemes.
"""
GLASS = "white on red"
HELD_BACK = "Held back, approved from "
WORDS = {
    name: (wording.others, COLOURS[wording.tone])
    for name, wording in STATE_WORDINGS.items()
    if name != NOBODY_NOTIFIED
}
"""The words and colour of each state. The words are those for other people: a terminal does not know its reader."""


def state(request: Mapping[str, Any]) -> Phrase:
    shown, colour = WORDS[OUTLIVED if request.get("is_outlived") else request["state"]]
    if request.get("held_back"):
        begins = moment(request.get("opens_at") or request["opened_at"])
        approved = (HELD_BACK, begins, " until ", moment(request["deadline_at"]))
        return phrase(*_glass(request), *approved, style=COLOURS[Tone.REFUSED])
    if request["state"] == "active" and not request["open"] and request.get("opens_at"):
        return phrase(
            "Open from ", moment(request["opens_at"]), " until ", moment(request["deadline_at"]), style=colour
        )
    until = (" until ", moment(request["deadline_at"])) if request["open"] else ()
    return phrase(*_glass(request), shown, *until, style=GLASS if request.get("break_glass") else colour)


def _glass(item: Mapping[str, Any]) -> tuple[object, ...]:
    return (f"{BREAK_GLASS_MARK}",) if item.get("break_glass") else ()


def after_review(item: Mapping[str, Any]) -> Facts:
    return Facts(
        {
            "Finding": Word(item["finding"])
            if item["finding"]
            else phrase("overdue", style=GLASS)
            if item["is_overdue"]
            else "not yet",
            "Due": moment(item["due_at"]),
            "Found by": item["found_by"],
            "Found": moment(item["found_at"]),
            "Comment": item["comment"],
        }
    )


def requests(items: Iterable[Mapping[str, Any]], *, in_file: bool = False) -> Listing:
    """In a terminal, customer and service share one column; a file has a column for each."""
    items = list(items)
    has_severity = in_file or any(item.get("severity") for item in items)
    rows = (
        (
            Identifier(item["id"]),
            phrase(
                *_glass(item),
                Word(item["state"]),
                style=GLASS if item.get("break_glass") else WORDS[item["state"]][1],
            ),
            *((item.get("severity") or "",) if has_severity else ()),
            *((item["tenant"], item["service"]) if in_file else (f"{item['tenant']} {item['service']}",)),
            item["level"] or NOTHING,
            item["requester"]["name"],
            moment(item["deadline_at"]),
        )
        for item in items
    )
    where = (*(("Severity",) if has_severity else ()), *(("Customer", "Service") if in_file else ("Service",)))
    return Listing.of(("Request", "State", *where, "Level", "Requester", "Deadline"), rows)


def decision_results(items: Iterable[Mapping[str, Any]]) -> Listing:
    rows = (
        (
            Identifier(item["request_id"]),
            state(item["request"]) if item["request"] else phrase("refused", style="red"),
            item["problem"]["detail"] if item["problem"] else "",
        )
        for item in items
    )
    return Listing.of(("Request", "State", "Why"), rows)


def request(item: Mapping[str, Any]) -> Facts:
    why = words(item["reason_code"])
    return Facts(
        {
            "Request": item["id"],
            "State": state(item),
            "Requester": item["requester"]["name"],
            **_requester(item),
            "Customer": item["tenant"],
            "Service": item["service"],
            "Resources": ", ".join(map(flagged, item["resources"])),
            "Actions": ", ".join(item["actions"]),
            **({"Level": item["level"]} if item["level"] else {}),
            **({"Parameters": parameters(item["context"])} if item["context"] else {}),
            "Reason": f"{why}: {item['justification']}" if item["justification"] else why,
            "Case": _case(item),
            **({"Severity": item["severity"]} if item.get("severity") else {}),
            "Window": Duration(item["access_window"]),
            **({"Begins": moment(item["opens_at"] or item["not_before"])} if item.get("not_before") else {}),
            **({"Uses": f"{item['uses_left']} of {item['max_uses']} left"} if item["max_uses"] else {}),
            "Deadline": moment(item["deadline_at"]),
            "Version": item["version"],
            **_shown_where_there(item),
        }
    )


def _requester(item: Mapping[str, Any]) -> dict[str, str]:
    named = {}
    if item.get("directory_as_of"):
        places = (item[name] for name in ("employing_entity", "office_country", "physical_country"))
        named["Location"] = f"{request_wording.located(*places)} (as of {item['directory_as_of'][:16]}Z)"
    if item.get("sign_in"):
        at = datetime.fromisoformat(item["signed_in_at"]) if item["signed_in_at"] else None
        submitted_at = datetime.fromisoformat(item["created_at"])
        named["Signed in"] = request_wording.signed_in(item["sign_in"], item["sign_in_means"], at, submitted_at)
    return named


def _moves(moves: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(words(move["action"]) for move in moves if move["allowed"])


def _shown_where_there(item: Mapping[str, Any]) -> dict[str, object]:
    found: dict[str, object] = {
        "Pre-approval": item.get("pre_approval_id"),
        "Granted": _granted(item),
        "Held back": _held_back(item),
        LOOK_ALIKES: ", ".join(item.get("look_alikes") or ()),
        "Decisions": "\n".join(map(_answer, item.get("decisions") or ())),
        "Approvals": "\n".join(map(_tally, item.get("approvals") or ())),
        "Finding": _finding(item.get("after_review")),
        "Reached": (item.get("reach") or {}).get("sentence"),
        "Extends": _extension(item),
        "Extended by": item.get("extended_by"),
        "Resubmits": item["follows"],
        "Duplicate of": _duplicate(item),
        "Resubmitted as": item.get("followed_by"),
        "Your actions": _moves(item.get("available_moves") or ()),
    }
    return {name: value for name, value in found.items() if value}


def _extension(item: Mapping[str, Any]) -> Phrase | None:
    if not item.get("extends"):
        return None
    begins = datetime.fromisoformat(item["not_before"])
    until = begins + timedelta(seconds=item["access_window"])
    if item.get("opened_at"):
        until = datetime.fromisoformat(item["deadline_at"])
    more = Duration(int((until - begins).total_seconds()))
    return phrase(item["extends"], ": +", more, " until ", moment(until.isoformat().replace("+00:00", "Z")))


def _held_back(item: Mapping[str, Any]) -> str:
    names = {"tenant": item["tenant"], "requester": item["requester"]["name"]}
    return request_wording.held_back_because(item["held_back"], **names) if item.get("held_back") else ""


def _case(item: Mapping[str, Any]) -> str | None:
    if not item["case_ref"]:
        return None
    where = f" in {item['case_system']}" if item["case_system"] else ""
    checked = f" {CASE_CHECKS[item['case_check']]}" if item["case_check"] else ""
    return f"{item['case_ref']}{where}{checked}" + (f"\n{item['case_url']}" if item["case_url"] else "")


def _duplicate(item: Mapping[str, Any]) -> str:
    why = f": {item['duplicate_reason']}" if item["duplicate_reason"] else ""
    return f"{item['duplicate_of']}{why}" if item["duplicate_of"] else ""


def closed_case(found: Mapping[str, Any]) -> Sequence[Part]:
    if not (found["ended"] or found["left"]):
        return ("Nothing was open for this case.",)
    rows = ((Identifier(one["request_id"]), one["tenant"], Word(one["state"])) for one in found["ended"])
    left = (f"Still open: {found['left']}. Run the command again.",) if found["left"] else ()
    return Listing.of(("Request", "Customer", "State"), rows), *left


def _finding(review: Mapping[str, Any] | None) -> str:
    if not review:
        return ""
    if review["finding"]:
        return f"{words(review['finding'])}, by {review['found_by'] or 'somebody whose name was erased'}"
    return "overdue: was it justified?" if review["is_overdue"] else "not yet: was it justified?"


def _granted(item: Mapping[str, Any]) -> str:
    granted = [(item.get(f"granted_{name}"), item[name]) for name in ("actions", "resources")]
    if all(found in (None, asked) for found, asked in granted):
        return ""
    actions, resources = (", ".join(found or asked) for found, asked in granted)
    return f"{actions} in {resources}"


def _answer(decision: Mapping[str, Any]) -> str:
    who = f"{decision['by']['name']} ({words(decision['role'])}){_for_others(decision)}"
    return f"{decision['decision']}{_by_means(decision)}: {who}"


def _tally(one: Mapping[str, Any]) -> str:
    group = f" of {one['group']}" if one["group"] else ""
    step = f", in step {one['step']}" if one["step"] > 1 else ""
    return f"{one['approvals']} of {one['needed']}{group}{step}"


def _for_others(item: Mapping[str, Any]) -> str:
    people = [one["name"] for one in item["principals"] or [item["on_behalf_of"]] if one]
    return f" for {', '.join(people)}" if people else ""


def _by_means(item: Mapping[str, Any]) -> str:
    return f" by {words(item['means'])}" if item["means"] else ""


def events(items: Iterable[Mapping[str, Any]]) -> Listing:
    rows = (
        (
            item["seq"],
            moment(item["at"]),
            who(item),
            action(item),
            item["to_state"] and Word(item["to_state"]),
            moment(item["deadline_at"]),
            beside(item),
        )
        for item in items
    )
    return Listing.of(("#", "Time", "Who", "Action", "State", "Deadline", "Comment"), rows)


def who(item: Mapping[str, Any]) -> str:
    role = f" ({words(item['role'])})" if item["actor"] else ""
    return f"{_actor(item)}{role}{_for_others(item)}"


def action(item: Mapping[str, Any]) -> str:
    return f"{words(item['action'])}{_by_means(item)}"


def _actor(item: Mapping[str, Any]) -> str:
    return item["actor"]["name"] if item["actor"] else NOBODYS.get(item["role"], "the clock")


def beside(item: Mapping[str, Any]) -> str:
    if item["comment"]:
        return str(item["comment"])
    if notified := item["notified"]:
        return _told(notified)
    if item["step"]:
        return f"step {item['step']} began, and its approvers were asked"
    if item.get("held_back"):
        return f"nobody is let in, because {request_wording.held_back_because(item['held_back'])}"
    return _reached(item)


def _reached(item: Mapping[str, Any]) -> str:
    if item["nobody_notified"]:
        return f"nobody could be notified: none of {item['asked']} was reached"
    if item["asked"] is not None:
        return f"{item['reached']} of {item['asked']} were reached"
    return f"none of {item['unreached']} could be reached" if item["unreached"] is not None else ""


def _told(notified: Mapping[str, Any]) -> str:
    by_outcome = {
        outcome: ", ".join(one["name"] for one in notified["recipients"] if one["outcome"] == outcome)
        for outcome in MAIL_OUTCOMES
    }
    of = f"#{notified['of_seq']} " if notified["of_seq"] else ""
    said = "; ".join(f"{MAIL_OUTCOMES[outcome]} {whom}" for outcome, whom in by_outcome.items() if whom)
    return f"{of}{said}" + (f"; and {notified['not_listed']} more" if notified["not_listed"] else "")


def activity(items: Iterable[Mapping[str, Any]]) -> Listing:
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
    columns = ("From", "Until", "Times", "Method", "Resource", "Outcome", "Note")
    return Listing.of(columns, rows, "No activity was reported.")


def questions(items: Iterable[Mapping[str, Any]]) -> Listing:
    rows = (
        (
            Identifier(item["id"]),
            moment(item["asked_at"]),
            item["asked_by"]["name"],
            item["question"] or NOTHING,
            moment(item["answered_at"]) if item["answered_at"] else "not yet",
            item["answer"] or NOTHING,
        )
        for item in items
    )
    return Listing.of(("Id", "Time", "Who", "Question", "Answered", "Answer"), rows, "There are no questions.")


def notifications(found: Mapping[str, Any]) -> Sequence[Part]:
    rows = (
        (
            one["recipient"],
            one["address"],
            one["channel"],
            Word(one["template"]),
            one["outcome"],
            one["attempts"],
            one["last_error"],
        )
        for one in found["own"]
    )
    columns = ("Recipient", "Address", "Channel", "Template", "Outcome", "Attempts", "Last error")
    others = ", ".join(f"{number} {outcome}" for outcome, number in found["other"].items())
    return Listing.of(columns, rows), f"The other side: {others}"


def connections(items: Iterable[Mapping[str, Any]]) -> Listing:
    rows = (
        (
            item["id"],
            item["target"],
            item["state"],
            item["failing"],
            moment(item["opened_at"]),
            moment(item["closed_at"]),
        )
        for item in items
    )
    return Listing.of(("Id", "Target", "State", "Failing", "Opened", "Closed"), rows)


def credential(item: Mapping[str, Any], password: str) -> Sequence[Part]:
    at = {"Address": item["address"], "User": item["role"], "Password": password, "Until": moment(item["until"])}
    login = Facts({"State": Word(item["state"]), **at})
    if item["state"] == "open":
        return (login,)
    failing = f" ({item['failing']})" if item["failing"] else ""
    return login, f"It is not good yet{failing}: look with `lockbox request connections`, and keep the password."
