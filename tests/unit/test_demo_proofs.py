"""The demo's proofs detect whatever is missing, surplus, late or wrong."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from demo import proofs
from demo.evidence import DemoAuditLog, DemoEvidence, DemoMail, DemoVerification, DemoWebhookCall, Probe
from demo.story import BREAK_GLASS, JUSTIFIED, MARK, OUT_OF_ORDER, STATUSES, STORIES, SUBJECTS, TASKS, Story
from devstack.flower import CONTROL_CALLS
from lockbox.notifications.mail_text import REQUEST_SUBJECTS as SUBJECTS_SENT
from tests.each import each

START = datetime(2026, 1, 1, tzinfo=UTC)
OPENED, DEADLINE, CLOSED, FURTHER = 2, 7, 4, 9
NAMES = {"erin": "Erin Engel", "max": "Max Marsh", "ann": "Ann Archer", "amir": "Amir Aziz", "tara": "Tara Todd"}
NAMES["helpdesk"] = "Helpdesk"


def moment(number: float) -> str:
    return (START + timedelta(seconds=number)).isoformat()


def second(number: float) -> float:
    return (START + timedelta(seconds=number)).timestamp()


def event(seq: int, state: str, by: str) -> dict[str, Any]:
    at = {"active": OPENED, "expired": DEADLINE, "revoked": CLOSED}.get(state, 0)
    return {
        "seq": seq,
        "at": moment(at),
        "to_state": state,
        "actor": {"name": NAMES[by]} if by in NAMES else None,
        "role": "clock" if by == "the clock" else "approver",
        "deadline_at": moment(DEADLINE),
    }


def answers(story: int) -> list[Probe]:
    ends = {1: DEADLINE, 4: CLOSED, 6: CLOSED, 7: FURTHER, 8: FURTHER, 9: DEADLINE}.get(story, 0)
    return [Probe(second(t), second(t + 0.1), 200 if OPENED <= t < ends else 403) for t in range(10)]


def request(story: Story) -> dict[str, Any]:
    further = {"opens_at": moment(DEADLINE), "deadline_at": moment(FURTHER), "extends": f"r{story.extends}"}
    one = {"id": f"r{story.number}", "state": story.end, "reminders": 1, "tiers_asked": 2}
    return one | {"deadline_at": moment(DEADLINE), "extends": None} | (further if story.extends else {})


def events(story: Story) -> list[dict[str, Any]]:
    found = [event(seq, step.state, step.by) for seq, step in enumerate(story.steps, 1)]
    return [one | {"deadline_at": moment(FURTHER)} for one in found] if story.extends else found


def mail(number: int, story: Story, of: str, to: str) -> DemoMail:
    subject = MARK if story.break_glass else ""
    return DemoMail(f"m{number}", f"r{story.number}", to, of, subject, second(OPENED + 1))


def good() -> DemoEvidence:
    """Evidence of a correct run."""
    steps = [(story, step) for story in STORIES for step in story.told]
    told = [(story, of, who) for story in STORIES for step in story.told for of, who in step.all_mails]
    called = [(story, step, endpoint) for story, step in steps for endpoint in step.hooks]
    hooks = [
        DemoWebhookCall(f"h{n}", to, step.event_type, f"r{s.number}", verified=True)
        for n, (s, step, to) in enumerate(called)
    ]
    (late,) = (hook for hook in hooks if (hook.endpoint, hook.type) == OUT_OF_ORDER)
    return DemoEvidence(
        requests={story.number: request(story) for story in STORIES},
        events={story.number: events(story) for story in STORIES},
        probes={s.number: answers(s.number) for s in STORIES},
        closed_at={4: second(CLOSED), 6: second(CLOSED)},
        after_reviews={9: {"finding": JUSTIFIED, "found_by": "Ann Archer"}},
        mails=[mail(n, s, of, who) for n, (s, of, who) in enumerate(told)],
        hooks=[replace(late, status=status) for status in STATUSES[:-1]] + hooks,
        deliveries=[
            {"webhook_id": late.hook_id, "event_type": late.type, "status": status, "at": f"2026-01-01T00:00:0{n}Z"}
            for n, status in reversed(list(enumerate(STATUSES)))
        ],
        submitted=len(STORIES),
        same_answer=True,
        tasks=dict.fromkeys(TASKS, 1),
        control=dict.fromkeys(CONTROL_CALLS, 403),
        audit_log=DemoAuditLog(
            40,
            DemoVerification(0, 40, "", "Intact, as signed. 40 events", 1),
            23,
            DemoVerification(1, 0, "edited: line 23"),
        ),
    )


def failed(seen: DemoEvidence) -> set[str]:
    """Return the titles of the failed lines of the last screen."""
    lines = [*proofs.of_stories(seen), *proofs.of_evidence(seen)]
    return {line.title for line in lines if not line.holds}


def test_the_demo_proofs_pass_for_a_correct_run() -> None:
    assert failed(good()) == set()


def test_the_demo_blames_a_gateway_only_if_it_was_probed_right_after_the_revoke() -> None:
    seen = good()
    seen.probes[4] = [probe for probe in seen.probes[4] if not 0 <= probe.sent - second(CLOSED) < 2]

    assert failed(seen) == set()


def test_the_demo_counts_a_repeated_mail_or_webhook_once() -> None:
    seen = good()

    seen.mails, seen.hooks = [*seen.mails, seen.mails[0]], [*seen.hooks, seen.hooks[-1]]

    assert failed(seen) == set()


def lose_a_mail(seen: DemoEvidence) -> None:
    seen.mails = seen.mails[1:]


def send_a_mail_too_many(seen: DemoEvidence) -> None:
    seen.mails = [*seen.mails, replace(seen.mails[0], message_id="another")]


def send_a_mail_to_somebody_else(seen: DemoEvidence) -> None:
    seen.mails = [replace(seen.mails[0], to="tara"), *seen.mails[1:]]


def lose_a_webhook(seen: DemoEvidence) -> None:
    seen.hooks = seen.hooks[:-1]


def forge_a_webhook(seen: DemoEvidence) -> None:
    seen.hooks = [*seen.hooks, replace(seen.hooks[-1], verified=False)]


def sign_a_webhook_wrongly(seen: DemoEvidence) -> None:
    seen.hooks = [*seen.hooks[:-1], replace(seen.hooks[-1], verified=False)]


def take_the_webhook_at_once(seen: DemoEvidence) -> None:
    seen.hooks = [hook for hook in seen.hooks if hook.taken]
    seen.deliveries = [delivery for delivery in seen.deliveries if delivery["status"] == STATUSES[-1]]


def fail_otherwise(seen: DemoEvidence) -> None:
    seen.hooks = [replace(hook, status=hook.status if hook.taken else 500) for hook in seen.hooks]
    seen.deliveries = [
        {**delivery, "status": delivery["status"] if delivery["status"] == STATUSES[-1] else 500}
        for delivery in seen.deliveries
    ]


def never_take_the_webhook(seen: DemoEvidence) -> None:
    seen.hooks = [hook for hook in seen.hooks if not (hook.taken and (hook.endpoint, hook.type) == OUT_OF_ORDER)]
    seen.deliveries = [delivery for delivery in seen.deliveries if delivery["status"] != STATUSES[-1]]


def try_again_under_another_id(seen: DemoEvidence) -> None:
    first = seen.hooks[0]
    seen.hooks = [replace(first, hook_id="another"), *seen.hooks[1:]]
    seen.deliveries = [*seen.deliveries[:-1], {**seen.deliveries[-1], "webhook_id": "another"}]


def log_what_never_came(seen: DemoEvidence) -> None:
    seen.hooks = seen.hooks[1:]


def log_nothing(seen: DemoEvidence) -> None:
    seen.deliveries = []


def lose_an_event(seen: DemoEvidence) -> None:
    seen.events[2] = seen.events[2][:1]


def leave_a_gap(seen: DemoEvidence) -> None:
    seen.events[2] = [seen.events[2][0], {**seen.events[2][1], "seq": 3}]


def name_somebody_else(seen: DemoEvidence) -> None:
    seen.events[2] = [seen.events[2][0], {**seen.events[2][1], "actor": {"name": "Ann Archer"}}]


def file_twice(seen: DemoEvidence) -> None:
    seen.submitted += 1


def answer_the_twin_differently(seen: DemoEvidence) -> None:
    seen.same_answer = False


def end_otherwise(seen: DemoEvidence) -> None:
    seen.requests[3] = {**seen.requests[3], "state": "active"}


def remind_nobody(seen: DemoEvidence) -> None:
    seen.requests[3] = {**seen.requests[3], "reminders": 0}


def be_refused_an_action(seen: DemoEvidence) -> None:
    seen.surprises.append("amir could not deny story 2: 409")


def never_open(seen: DemoEvidence) -> None:
    seen.probes[1] = [replace(probe, status=403) for probe in seen.probes[1]]


def flicker(seen: DemoEvidence) -> None:
    seen.probes[1] = [*seen.probes[1][:4], replace(seen.probes[1][4], status=403), *seen.probes[1][5:]]


def never_ask(seen: DemoEvidence) -> None:
    seen.probes[3] = []


def serve_the_denied(seen: DemoEvidence) -> None:
    seen.probes[2] = [*seen.probes[2][:5], replace(seen.probes[2][5], status=200), *seen.probes[2][6:]]


def serve_after_the_deadline(seen: DemoEvidence) -> None:
    late = Probe(second(DEADLINE), second(DEADLINE + 0.01), 200)
    seen.probes[1] = [*seen.probes[1][:DEADLINE], late, *seen.probes[1][DEADLINE:]]


def serve_after_it_was_closed(seen: DemoEvidence) -> None:
    late = Probe(second(CLOSED + 1.01), second(CLOSED + 1.02), 200)
    seen.probes[4] = [*seen.probes[4][:CLOSED], late, *seen.probes[4][CLOSED + 2 :]]


def refuse_only_after_the_deadline(seen: DemoEvidence) -> None:
    seen.probes[4] = [probe for probe in seen.probes[4] if not CLOSED <= probe.sent - second(0) < DEADLINE]


def never_refuse_after_the_revoke(seen: DemoEvidence) -> None:
    seen.probes[4] = [probe for probe in seen.probes[4] if probe.sent < second(CLOSED)]


def see_no_task(seen: DemoEvidence) -> None:
    del seen.tasks["lockbox.expire"]


def let_flower_act(seen: DemoEvidence) -> None:
    seen.control[CONTROL_CALLS[0]] = 200


def leave_a_control_call_untried(seen: DemoEvidence) -> None:
    del seen.control[CONTROL_CALLS[0]]


def never_seal(seen: DemoEvidence) -> None:
    seen.audit_log = DemoAuditLog()


def lose_an_event_of_the_audit_log(seen: DemoEvidence) -> None:
    seen.audit_log = replace(seen.audit_log, verified=DemoVerification(0, 39, by_break_glass=1))


def find_the_audit_log_edited(seen: DemoEvidence) -> None:
    seen.audit_log = replace(seen.audit_log, verified=DemoVerification(1, 0, "edited: line 7"))


def overlook_the_flipped_byte(seen: DemoEvidence) -> None:
    seen.audit_log = replace(seen.audit_log, flipped=DemoVerification(0, 40))


def name_another_line(seen: DemoEvidence) -> None:
    seen.audit_log = replace(seen.audit_log, flipped=DemoVerification(1, 0, "edited: line 24"))


def miss_break_glass_in_the_audit_log(seen: DemoEvidence) -> None:
    seen.audit_log = replace(seen.audit_log, verified=DemoVerification(0, 40))


def leave_a_gap_at_the_seam(seen: DemoEvidence) -> None:
    refused = replace(seen.probes[8][DEADLINE], status=403)
    seen.probes[8] = [*seen.probes[8][:DEADLINE], refused, *seen.probes[8][DEADLINE + 1 :]]


def end_with_the_first_window(seen: DemoEvidence) -> None:
    for number in (7, 8):
        seen.probes[number] = [
            replace(probe, status=403) if probe.sent >= second(DEADLINE) else probe for probe in seen.probes[number]
        ]


def never_try_the_second_window(seen: DemoEvidence) -> None:
    seen.probes[8] = [probe for probe in seen.probes[8] if not second(DEADLINE) <= probe.sent < second(FURTHER)]


def serve_after_the_second_window(seen: DemoEvidence) -> None:
    late = Probe(second(FURTHER), second(FURTHER + 0.01), 200)
    seen.probes[7] = [*seen.probes[7][:FURTHER], late, *seen.probes[7][FURTHER:]]


def extend_another(seen: DemoEvidence) -> None:
    seen.requests[8] = {**seen.requests[8], "extends": "r1"}


def tell_late(seen: DemoEvidence) -> None:
    seen.mails = [replace(one, at=second(OPENED + 6)) if one.request_id == "r9" else one for one in seen.mails]


def tell_one_fewer(seen: DemoEvidence) -> None:
    lost = next(one for one in seen.mails if one.state == BREAK_GLASS and one.to == "tara")
    seen.mails = [one for one in seen.mails if one is not lost]


def leave_the_mark_out(seen: DemoEvidence) -> None:
    seen.mails = [replace(one, subject="Expired") if one.request_id == "r9" else one for one in seen.mails]


def find_nothing(seen: DemoEvidence) -> None:
    seen.after_reviews = {9: {"finding": None, "found_by": None}}


OPEN, ON, TOLD = "calls of 1, 4, 6-9 let in", "7 goes on by 8, no gap", "all told of break-glass"
AUDIT_LOG, FLIPPED = "audit log verified offline", "one byte of it flipped"
REVOKED = "Caddy refuses after revoke"
OUTSIDE, RETRIED = "served outside a window", "a webhook that failed twice"
TAMPERINGS: list[tuple[Callable[[DemoEvidence], None], set[str]]] = [
    (lose_a_mail, {"mails received"}),
    (send_a_mail_too_many, {"mails received"}),
    (send_a_mail_to_somebody_else, {"mails received"}),
    (lose_a_webhook, {"webhooks, signature verified"}),
    (forge_a_webhook, {"webhooks, signature verified"}),
    (sign_a_webhook_wrongly, {"webhooks, signature verified"}),
    (take_the_webhook_at_once, {RETRIED}),
    (fail_otherwise, {RETRIED}),
    (never_take_the_webhook, {"webhooks, signature verified", RETRIED}),
    (try_again_under_another_id, {RETRIED}),
    (log_what_never_came, {RETRIED}),
    (log_nothing, {RETRIED}),
    (lose_an_event, {"events, one a move, no gap"}),
    (leave_a_gap, {"events, one a move, no gap"}),
    (name_somebody_else, {"events, one a move, no gap"}),
    (file_twice, {"sent twice with one key"}),
    (answer_the_twin_differently, {"sent twice with one key"}),
    (end_otherwise, {"3 left unanswered"}),
    (remind_nobody, {"reminders while 3 waited"}),
    (be_refused_an_action, {"2 denied"}),
    (never_open, {OPEN}),
    (flicker, {OPEN}),
    (never_ask, {"calls of 2, 3, 5 let in"}),
    (serve_the_denied, {"calls of 2, 3, 5 let in", OUTSIDE}),
    (serve_after_the_deadline, {OUTSIDE}),
    (serve_after_it_was_closed, {OUTSIDE, REVOKED}),
    (refuse_only_after_the_deadline, {REVOKED}),
    (never_refuse_after_the_revoke, {OPEN, REVOKED}),
    (see_no_task, {"tasks seen in Flower"}),
    (let_flower_act, {"Flower's control calls"}),
    (never_seal, {AUDIT_LOG, FLIPPED}),
    (lose_an_event_of_the_audit_log, {AUDIT_LOG}),
    (find_the_audit_log_edited, {AUDIT_LOG}),
    (overlook_the_flipped_byte, {FLIPPED}),
    (name_another_line, {FLIPPED}),
    (miss_break_glass_in_the_audit_log, {AUDIT_LOG}),
    (leave_a_gap_at_the_seam, {OPEN, ON}),
    (end_with_the_first_window, {ON}),
    (never_try_the_second_window, {ON}),
    (serve_after_the_second_window, {OUTSIDE}),
    (extend_another, {ON}),
    (tell_late, {TOLD}),
    (tell_one_fewer, {"mails received", TOLD}),
    (leave_the_mark_out, {TOLD}),
    (find_nothing, {"finding about break-glass"}),
    (leave_a_control_call_untried, {"Flower's control calls"}),
]


@each(("tamper", "lines"), TAMPERINGS)
def test_the_demo_shows_each_deviation_on_its_line(tamper: Callable[[DemoEvidence], None], lines: set[str]) -> None:
    seen = good()

    tamper(seen)

    assert failed(seen) == lines


def test_the_demo_recognises_mails_by_their_subjects() -> None:
    subjects = {BREAK_GLASS if name == "break_glass" else name: told for name, told in SUBJECTS_SENT.items()}
    subjects["after_review"] = subjects["after_review"].replace("{found_of}", JUSTIFIED)

    for name in SUBJECTS:
        assert next(state for state, begins in SUBJECTS.items() if re.match(begins, subjects[name])) == name
