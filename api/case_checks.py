"""Wait for a ticket system between two attempts at a submission, without blocking a thread."""

import asyncio
import time
from dataclasses import replace
from functools import partial

from config.settings import Settings
from lockbox.call_groups.groups import CallGroups
from lockbox.facts.enumerations import CaseCheck
from lockbox.requests import case_check
from lockbox.requests.case_check import CaseAnswer, CaseQuestion, CaseUnchecked

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25


async def confirmed(groups: CallGroups, settings: Settings, unchecked: CaseUnchecked) -> CaseCheck:
    """Ask the ticket system about the case; the caller then submits again with the answer.

    Raises:
        CaseNotConfirmed: the case is closed, or not assigned to the engineer.
        CaseSystemDown: there is no answer, and the policy requires one.
        TooMany: the caller has had too many cases checked within a minute.
    """
    systems, question = settings.catalogue.case_systems, unchecked.question
    named = question.case_system or (next(iter(systems)) if len(systems) == 1 else "")
    has_adapter = named in systems and systems[named].adapter
    most = settings.submissions_per_person
    answer = await _answer(groups, replace(question, case_system=named), most) if has_adapter else None
    return case_check.judged(answer, unchecked.demand)


async def _answer(groups: CallGroups, question: CaseQuestion, most: int) -> CaseAnswer | None:
    until, pause = time.monotonic() + case_check.SECONDS, FIRST_PAUSE
    number = await groups.run(partial(case_check.ask, question=question, most=most))
    while (left := until - time.monotonic()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE)
        if answer := await groups.run(partial(case_check.read, number=number, question=question)):
            return answer
    return await groups.run(partial(case_check.read_last, number=number, question=question))
