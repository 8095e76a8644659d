"""The proofs: compare what was seen with what the stories say must be; pure, so that the proofs can be tested."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from math import inf
from typing import Any

from cli.request_table import WORDS
from demo.evidence import DemoAuditLog, DemoEvidence, DemoVerification, Probe
from demo.story import (
    ALARMED,
    BREAK_GLASS,
    JUSTIFIED,
    MARK,
    OUT_OF_ORDER,
    REMINDED,
    STATUSES,
    STORIES,
    TASKS,
    Story,
)
from devstack.flower import CONTROL_CALLS

FORBIDDEN = 403
GATE_SECONDS = 1.0
"""A call that begins this long after a window was revoked is refused."""
TOLD_SECONDS = 5.0
"""This long after break-glass opened access, everyone at the customer who must be notified has a mail."""


@dataclass(frozen=True)
class ProofLine:
    """A line of the last screen; `off` lists what is wrong, empty if nothing is."""

    title: str
    expected: str
    seen: str
    off: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing is wrong."""
        return not self.off


def of_stories(seen: DemoEvidence) -> list[ProofLine]:
    """Return a line for each story: how it had to end, and how it did."""
    return [_ended(story, seen) for story in STORIES]


def of_evidence(seen: DemoEvidence) -> list[ProofLine]:
    """Return a line for each kind of evidence."""
    return [
        _mails(seen),
        _hooks(seen),
        _retried(seen),
        _events(seen),
        _reminders(seen),
        _twice(seen),
        *_doors(seen),
        *_goes_on(seen),
        *_break_glass(seen),
        _tasks(seen),
        _control(seen),
        *_audit_log(seen.audit_log),
    ]


def _ended(story: Story, seen: DemoEvidence) -> ProofLine:
    state = seen.requests[story.number]["state"]
    off = () if state == story.end else (f"story {story.number} ended {state!r} instead of {story.end!r}",)
    surprises = tuple(line for line in seen.surprises if f"story {story.number}:" in line)
    return ProofLine(f"{story.number} {story.title}", WORDS[story.end][0], WORDS[state][0], off + surprises)


def _mails(seen: DemoEvidence) -> ProofLine:
    numbers = _numbers(seen)
    must = Counter((s.number, of, who) for s in STORIES for step in s.told for of, who in step.all_mails)
    once = {mail.message_id: (numbers.get(mail.request_id, 0), mail.state, mail.to) for mail in seen.mails}
    off = _differences("mail", must, Counter(once.values()))
    return ProofLine("mails received", str(must.total()), str(len(once)), off)


def _hooks(seen: DemoEvidence) -> ProofLine:
    numbers = _numbers(seen)
    must = Counter((s.number, step.event_type, to) for s in STORIES for step in s.told for to in step.hooks)
    taken = [hook for hook in seen.hooks if hook.taken]
    once = {hook.hook_id: (numbers.get(hook.request_id, 0), hook.type, hook.endpoint) for hook in taken}
    off = _differences("webhook", must, Counter(once.values()))
    if forged := sum(not hook.verified for hook in seen.hooks):
        off = (*off, f"{forged} webhook(s) with a wrong signature")
    return ProofLine("webhooks, signature verified", str(must.total()), str(len(once)), off)


def _retried(seen: DemoEvidence) -> ProofLine:
    """Compare the receiver's record of the call that it refused twice with the delivery log's."""
    here = [(hook.hook_id, hook.status) for hook in seen.hooks if (hook.endpoint, hook.type) == OUT_OF_ORDER]
    log = sorted(
        (delivery for delivery in seen.deliveries if delivery["event_type"] == OUT_OF_ORDER[1]),
        key=lambda one: one["at"],
    )
    logged = [(one["webhook_id"], one["status"]) for one in log]
    must, said = _tries(STATUSES, 1), _tries((status for _, status in logged), len({one for one, _ in logged}))
    off = () if said == must else (f"the log has the tries {said} instead of {must}",)
    if here != logged:
        off = (*off, f"the receiver answered {here}, and the log has {logged}")
    return ProofLine("a webhook that failed twice", must, said, off)


def _tries(statuses: Iterable[int | None], ids: int) -> str:
    return f"{' '.join(str(status) for status in statuses) or 'none'}, {ids} id{'s' * (ids != 1)}"


def _events(seen: DemoEvidence) -> ProofLine:
    off: list[str] = []
    for story in STORIES:
        found = [(event["seq"], event["to_state"], _actor(event)) for event in seen.events[story.number]]
        must = [(seq, step.state, step.by) for seq, step in enumerate(story.steps, 1)]
        if found != must:
            off.append(f"story {story.number} has the events {found} instead of {must}")
    number = sum(len(events) for events in seen.events.values())
    return ProofLine("events, one a move, no gap", str(sum(len(s.steps) for s in STORIES)), str(number), tuple(off))


def _reminders(seen: DemoEvidence) -> ProofLine:
    counts = (seen.requests[s.number] for s in STORIES if any(step.event == "reminded" for step in s.beside))
    said = " / ".join(f"{count['reminders']} reminder, {count['tiers_asked']} tiers" for count in counts)
    off = () if said == REMINDED else (f"the clock's reminders were {said}, not {REMINDED}",)
    return ProofLine("reminders while 3 waited", REMINDED, said, off)


def _twice(seen: DemoEvidence) -> ProofLine:
    off = [] if seen.same_answer else ["the same Idempotency-Key got two answers"]
    if seen.submitted != len(STORIES):
        off.append(f"{seen.submitted} requests were submitted instead of {len(STORIES)}")
    extra = seen.submitted - len(STORIES) + 1
    answer = "same answer" if seen.same_answer else "two answers"
    return ProofLine(
        "sent twice with one key",
        "1 request, same answer",
        f"{extra} request{'s' if extra != 1 else ''}, {answer}",
        tuple(off),
    )


def _doors(seen: DemoEvidence) -> Iterator[ProofLine]:
    for opens, title, must in (
        (True, "calls of 1, 4, 6-9 let in", "no, yes, no"),
        (False, "calls of 2, 3, 5 let in", "no"),
    ):
        phases = {s.number: _phases(seen.probes[s.number]) for s in STORIES if s.opens is opens}
        off = tuple(
            f"calls of story {n} were let in: {said}, not {must}" for n, said in phases.items() if said != must
        )
        yield ProofLine(title, must, " / ".join(sorted(set(phases.values()))), off)
    served = {story: [p for p in seen.probes[story.number] if p.said == "serves"] for story in STORIES}
    outside = {
        story: sum(not any(_inside(p, one, seen) for one in _same_mailbox(story)) for p in found)
        for story, found in served.items()
    }
    off = tuple(f"story {s.number} was served {n} times outside its window" for s, n in outside.items() if n)
    yield _moment(seen)
    total = sum(len(found) for found in served.values())
    yield ProofLine("served outside a window", "0", f"{sum(outside.values())} of {total} servings", off)


def _moment(seen: DemoEvidence) -> ProofLine:
    """How long after the answer to the revoke the last call began that the gateway let in."""
    must = f"within {GATE_SECONDS:.0f} s"
    revoked = next(story.number for story in STORIES if story.opens and story.end == "revoked")
    closed_at = seen.closed_at.get(revoked, inf)
    # After the window's own end a refusal says nothing about the revoke.
    ends = _instant(seen.requests[revoked]["deadline_at"])
    if not any(p.said == "refuses" and closed_at < p.answered and p.sent < ends for p in seen.probes[revoked]):
        return ProofLine("Caddy refuses after revoke", must, "never", ("no call was refused after the revoke",))
    took = max((p.sent - closed_at for p in seen.probes[revoked] if p.said == "serves"), default=0.0)
    off = () if took <= GATE_SECONDS else (f"Caddy let in a call that began {took:.2f} s after the revoke",)
    return ProofLine("Caddy refuses after revoke", must, f"{max(took, 0):.2f} s", off)


def _goes_on(seen: DemoEvidence) -> Iterator[ProofLine]:
    """From the end of the extended window on, the extension's own window lets calls in, without a gap."""
    for story in (story for story in STORIES if story.extends):
        begins, ends = (_instant(seen.requests[number]["deadline_at"]) for number in (story.extends, story.number))
        said = {probe.said for probe in seen.probes[story.number] if begins <= probe.sent and probe.answered < ends}
        was = "never tried" if not said else "yes" if said == {"serves"} else "no"
        off = () if was == "yes" else (f"calls of story {story.extends} after its window were let in: {was}",)
        if seen.requests[story.number]["extends"] != seen.requests[story.extends]["id"]:
            off = (*off, f"story {story.number} does not extend story {story.extends}")
        yield ProofLine(f"{story.extends} goes on by {story.number}, no gap", "yes", was, off)


def _break_glass(seen: DemoEvidence) -> Iterator[ProofLine]:
    """How soon everyone at the customer had a mail about it, and what the customer found after its end."""
    (number,) = (story.number for story in STORIES if story.break_glass)
    yield _alarmed(number, seen)
    found = seen.after_reviews.get(number) or {}
    must = f"{JUSTIFIED}, by Ann"
    said = f"{found['finding']}, by {str(found['found_by']).partition(' ')[0]}" if found.get("finding") else "none"
    off = () if said == must else (f"the finding about story {number} was {said}",)
    yield ProofLine("finding about break-glass", must, said, off)


def _alarmed(number: int, seen: DemoEvidence) -> ProofLine:
    mails = [mail for mail in seen.mails if mail.request_id == seen.requests[number]["id"]]
    had = {mail.to: mail.at for mail in mails if mail.state == BREAK_GLASS and mail.to in ALARMED}
    opened = next((_instant(event["at"]) for event in seen.events[number] if event["to_state"] == "active"), inf)
    took = max((at - opened for at in had.values()), default=inf)
    in_time = took <= TOLD_SECONDS and len(had) == len(ALARMED)
    off = [] if in_time else [f"of {len(ALARMED)} people {len(had)} heard of break-glass, after {took:.2f} s"]
    off += [f"the mail {mail.subject!r} is not marked" for mail in mails if not mail.subject.startswith(MARK)]
    said = f"{max(took, 0):.2f} s" if had else "never"
    return ProofLine("all told of break-glass", f"within {TOLD_SECONDS:.0f} s", said, tuple(off))


def _phases(probes: Iterable[Probe]) -> str:
    words = {"serves": "yes", "refuses": "no"}
    return ", ".join(words.get(said, said) for said, _ in groupby(probe.said for probe in probes)) or "never tried"


def _same_mailbox(story: Story) -> Iterator[Story]:
    return (one for one in STORIES if one.mailbox == story.mailbox)


def _inside(probe: Probe, story: Story, seen: DemoEvidence) -> bool:
    """Whether an answer can have been given in the window: asked before its end, answered after its start.

    The window ends exactly at its deadline. An early end takes effect once the person who ends it has the answer; the
    gate follows within a second.
    """
    opened = next((event for event in seen.events[story.number] if event["to_state"] == "active"), None)
    if opened is None:
        return False
    begins = seen.requests[story.number].get("opens_at") or opened["at"]
    ends = min(_instant(opened["deadline_at"]), seen.closed_at.get(story.number, inf) + GATE_SECONDS)
    return probe.answered > _instant(begins) and probe.sent < ends


def _tasks(seen: DemoEvidence) -> ProofLine:
    missing = tuple(f"{task} was not seen in Flower" for task in TASKS if not seen.tasks.get(task))
    names = [task.removeprefix("lockbox.") for task in TASKS if seen.tasks.get(task)]
    must = " ".join(task.removeprefix("lockbox.") for task in TASKS)
    return ProofLine("tasks seen in Flower", must, " ".join(names) or "none", missing)


def _control(seen: DemoEvidence) -> ProofLine:
    off = tuple(
        f"Flower answered {seen.control.get(call)} to {call}"
        for call in CONTROL_CALLS
        if seen.control.get(call) != FORBIDDEN
    )
    statuses = " ".join(f"{n} x {status}" for status, n in sorted(Counter(seen.control.values()).items()))
    return ProofLine("Flower's control calls", f"{len(CONTROL_CALLS)} x {FORBIDDEN}", statuses, off)


def _audit_log(audit_log: DemoAuditLog) -> Iterator[ProofLine]:
    """An offline verifier finds the whole audit log intact, and names the line in which a byte was flipped."""
    whole, flipped = audit_log.verified or DemoVerification(-1), audit_log.flipped or DemoVerification(-1)
    must = f"good, {audit_log.recorded} events" if audit_log.recorded else "sealed, and good"
    said = f"good, {whole.events} events" if whole.code == 0 else whole.found or "never sealed"
    off = () if said == must else (f"the audit log was {said}, not {must}: {_first_line(whole)}",)
    glasses = sum(story.break_glass for story in STORIES)
    if whole.by_break_glass != glasses:
        off = (*off, f"the audit log has {whole.by_break_glass} windows by break-glass instead of {glasses}")
    yield ProofLine("audit log verified offline", must, said, off)
    must = f"edited: line {audit_log.line}"
    said = "good" if flipped.code == 0 else flipped.found or "never tried"
    off = () if said == must and flipped.code == 1 else (f"a byte flipped in line {audit_log.line} was found {said}",)
    yield ProofLine("one byte of it flipped", must, said, off)


def _first_line(verified: DemoVerification) -> str:
    return verified.said.partition("\n")[0] or "nothing was verified"


def _differences(
    what: str, must: Counter[tuple[int, str, str]], found: Counter[tuple[int, str, str]]
) -> tuple[str, ...]:
    def told(items: Counter[tuple[int, str, str]], word: str) -> Iterator[str]:
        for (number, state, to), times in sorted(items.items()):
            yield f"{word}: {what} of story {number}, {state}, to {to}" + (f" ({times} times)" if times > 1 else "")

    return (*told(must - found, "missing"), *told(found - must, "too many"))


def _numbers(seen: DemoEvidence) -> dict[str, int]:
    return {request["id"]: number for number, request in seen.requests.items()}


def _actor(event: Mapping[str, Any]) -> str:
    actor = event["actor"]
    return str(actor["name"]).partition(" ")[0].lower() if actor else f"the {event['role']}"


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
