"""Play the stories: submit them, let each person act when it is time, and watch until nothing more happens."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from demo import arrivals, audit_log
from demo.evidence import DemoEvidence, DemoMail, DemoWebhookCall
from demo.stage import DemoFailure, DemoStack, mailbox
from demo.story import ACCESS_SECONDS, CLOSE, DESK, EXTEND, FIND, JUSTIFIED, STORIES, TASKS, Cue, Story
from harness.people import client_of, submission
from lockbox.requests.lifecycle import FINAL_STATES

TICK_SECONDS = 0.2
STORY_SECONDS = 30
QUIET_SECONDS = 8
LAST_LOOK_SECONDS = 1.0
"""How long the gateway is still probed after the last request has closed."""


@dataclass(frozen=True)
class StoryRow:
    """A story as it stands now.

    `left` is in seconds until its deadline, None once it is closed. `said` are all answers of the gateway to its
    probes, and `now` is the latest answer to a probe since the story reached this state, None if there is none yet.
    """

    story: Story
    state: str
    deadline_at: datetime
    left: float | None
    said: tuple[str, ...]
    now: str | None


class DemoRun:
    """One performance. What is seen is kept in `evidence`."""

    def __init__(self, stage: DemoStack) -> None:
        self.evidence = DemoEvidence()
        self._stage = stage
        self._cast = stage.cast
        whose = ("erin", "max", "ann", "amir", "tara", DESK)
        self._people = {who: client_of(stage.plan, stage.cast.tokens[who]) for who in whose}
        self._cues = {story.number: list(story.cues) for story in STORIES}
        self._since: dict[int, float] = {}
        self._read: list[DemoMail] = []
        self._began = 0.0

    @property
    def counts(self) -> tuple[int, int]:
        """How many mails and webhook calls of this run have arrived."""
        return len(self._mails()), sum(hook.taken for hook in self._hooks())

    def perform(self) -> Iterator[list[StoryRow]]:
        """Play; a few times a second yield how all stories stand, until each is closed and everyone was notified.

        Raises:
            DemoFailure: a request was not accepted, or a process ended.
        """
        self._stage.doors.start()
        time.sleep(TICK_SECONDS * 2)
        at_the_start = [story for story in STORIES if not story.extends]
        with ThreadPoolExecutor(len(at_the_start)) as pool:
            for story, request in zip(at_the_start, pool.map(self._submit, at_the_start), strict=True):
                self.evidence.requests[story.number] = request
        self._began = time.monotonic()
        closed_since: float | None = None
        while not self._over(closed_since):
            self._stage.check()
            self._look()
            if closed_since is None and self._played_out():
                closed_since = time.monotonic()
            self._cue()
            yield [self._row(story) for story in self._submitted()]
            time.sleep(TICK_SECONDS)
        if len(self._submitted()) < len(STORIES):
            raise DemoFailure(f"not all requests were submitted; {'; '.join(self.evidence.surprises) or 'too slow'}")

    def gather(self) -> DemoEvidence:
        """Collect the remaining evidence, and return all of it."""
        seen = self.evidence
        self._stage.doors.stop()
        seen.probes = self._stage.doors.seen
        for number, request in seen.requests.items():
            items = self._get("ann", f"/v1/requests/{request['id']}/events")["items"]
            seen.events[number] = [item for item in items if item["seq"]]
            if request["break_glass"]:
                seen.after_reviews[number] = self._get("ann", f"/v1/requests/{request['id']}")["after_review"]
        seen.submitted = len(self._get("ann", "/v1/requests", limit=200)["items"])
        seen.mails, seen.hooks = self._mails(), self._hooks()
        seen.deliveries = self._log()
        seen.tasks, seen.control = self._stage.flower.tasks(TASKS), self._stage.flower.control()
        seen.audit_log = audit_log.examine(self._people["tara"], self._stage.plan)
        for client in self._people.values():
            client.close()
        return seen

    def _submitted(self) -> list[Story]:
        return [story for story in STORIES if story.number in self.evidence.requests]

    def _played_out(self) -> bool:
        """Whether every request is closed, and no finding is left to give."""
        requests = self.evidence.requests
        closed = [story for story in self._submitted() if requests[story.number]["state"] in FINAL_STATES]
        left = (cue.action for cues in self._cues.values() for cue in cues)
        return len(closed) == len(STORIES) and FIND not in left

    def _over(self, closed_since: float | None) -> bool:
        if closed_since is None:
            return self._began + STORY_SECONDS < time.monotonic()
        passed = time.monotonic() - closed_since
        return passed > LAST_LOOK_SECONDS and (passed > QUIET_SECONDS or self._quiet())

    def _quiet(self) -> bool:
        requests = self.evidence.requests.values()
        return not any(
            self._get("ann", f"/v1/requests/{request['id']}")["notifications"]["waiting"] for request in requests
        )

    def _submit(self, story: Story) -> Mapping[str, Any]:
        body = submission(
            self._cast.tenant,
            resources=[f"mailbox:{mailbox(story.number, self._cast.tenant)}"],
            justification=f"Mails to {story.mailbox} bounce since this morning.",
            case_ref=_case(story),
            case_system="helpdesk",
            access_window=story.seconds,
            **({"break_glass": True} if story.break_glass else {}),
        )
        headers = {"idempotency-key": f"{self._cast.tenant}-{story.number}"} if story.twice else {}
        answers = [self._post("erin", "/v1/requests", body, headers) for _ in range(2 if story.twice else 1)]
        for answer in answers:
            if answer.status_code != httpx.codes.CREATED:
                raise DemoFailure(f"story {story.number} was not submitted: {answer.status_code} {answer.text[:300]}")
        if story.twice:
            self.evidence.same_answer = answers[0].json() == answers[1].json()
        submitted: Mapping[str, Any] = answers[0].json()
        return submitted

    def _look(self) -> None:
        # Ask as the manager too: the customer does not see requests that the vendor is still reviewing.
        items = [self._get(who, "/v1/requests", limit=200)["items"] for who in ("ann", "max")]
        now = {item["id"]: item for page in items for item in page}
        for number, before in self.evidence.requests.items():
            after = self.evidence.requests[number] = now.get(before["id"], before)
            if after["state"] != before["state"]:
                self._since[number] = self._now()

    def _cue(self) -> None:
        for story in self._submitted():
            cues = self._cues[story.number]
            if cues and time.monotonic() - self._began >= cues[0].after and self._is_time(story, cues[0]):
                self._act(story, cues.pop(0))

    def _is_time(self, story: Story, cue: Cue) -> bool:
        """Whether a cue may be played now.

        A finding needs a request that has ended; to end or extend a window, the window must have been seen open; for
        all else, everyone who is asked must have the mail.
        """
        if cue.action == FIND:
            return self.evidence.requests[story.number]["state"] in FINAL_STATES
        if cue.action in {"revoke", CLOSE, EXTEND}:
            return any(probe.said == "serves" for probe in self._stage.doors.seen[story.number])
        return self._asked_have_heard(story)

    def _act(self, story: Story, cue: Cue) -> None:
        path = f"/v1/requests/{self.evidence.requests[story.number]['id']}/{cue.action}"
        if cue.action == CLOSE:
            path = f"/v1/cases/helpdesk/{_case(story)}/{CLOSE}"
        answer = self._post(cue.who, path, _body(story, cue), {})
        if answer.is_success:
            if cue.action == EXTEND:
                extension = next(one for one in STORIES if one.extends == story.number)
                self.evidence.requests[extension.number] = answer.json()
            elif cue.action == CLOSE or answer.json().get("state") in FINAL_STATES:
                self.evidence.closed_at[story.number] = self._now()
        else:
            told = f"{cue.who} could not {cue.action} story {story.number}: {answer.status_code} {answer.text[:200]}"
            self.evidence.surprises.append(told)

    def _asked_have_heard(self, story: Story) -> bool:
        """Whether the last step's mails have arrived, because an answer would cancel those still unsent."""
        request_id = self.evidence.requests[story.number]["id"]
        last = story.steps[len(story.cues) - len(self._cues[story.number])]
        mails = {(mail.state, mail.to) for mail in self._mails() if mail.request_id == request_id}
        return mails >= {(last.state, who) for who in last.mails.split()}

    def _row(self, story: Story) -> StoryRow:
        request = self.evidence.requests[story.number]
        deadline_at = datetime.fromisoformat(request["deadline_at"])
        left = max(0.0, deadline_at.timestamp() - self._now())
        probes = self._stage.doors.seen[story.number]
        since = self._since.get(story.number, 0.0)
        now = probes[-1].said if probes and probes[-1].sent > since else None
        closed = request["state"] in FINAL_STATES
        said = tuple(probe.said for probe in probes)
        return StoryRow(story, request["state"], deadline_at, None if closed else left, said, now)

    def _now(self) -> float:
        return time.time() + self._cast.ahead

    def _mails(self) -> list[DemoMail]:
        ids = {request["id"] for request in self.evidence.requests.values()}
        box = self._stage.mailbox
        came = zip(box.all()[len(self._read) :], box.times()[len(self._read) :], strict=True)
        self._read += [arrivals.mail(message, at + self._cast.ahead) for message, at in came]
        return [mail for mail in self._read if mail.request_id in ids]

    def _hooks(self) -> list[DemoWebhookCall]:
        ids = {request["id"] for request in self.evidence.requests.values()}
        seen = [hook for receiver in self._stage.receivers for hook in receiver.seen]
        return [hook for hook in seen if hook.request_id in ids or not hook.verified]

    def _log(self) -> list[Mapping[str, Any]]:
        endpoints = self._get("tara", f"/v1/tenants/{self._cast.tenant}/endpoints")["items"]
        logs = (
            self._get("tara", f"/v1/endpoints/{endpoint['id']}/deliveries", limit=200)["items"]
            for endpoint in endpoints
        )
        return [delivery for log in logs for delivery in log]

    def _post(self, who: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> httpx.Response:
        return self._people[who].post(path, json=body, headers=headers)

    def _get(self, who: str, path: str, **params: int) -> Any:  # noqa: ANN401 - any JSON
        return self._people[who].get(path, params=params).raise_for_status().json()


def _body(story: Story, cue: Cue) -> dict[str, str | int]:
    if cue.action == CLOSE:
        return {}
    if cue.action == EXTEND:
        return {"access_window": ACCESS_SECONDS}
    found = {"finding": JUSTIFIED} if cue.action == FIND else {}
    return {"comment": f"Story {story.number}: {story.title}.", **found}


def _case(story: Story) -> str:
    return f"CASE-{story.number}"
