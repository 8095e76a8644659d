"""Calls that share a transaction on the event loop are answered as if each had come alone."""

import asyncio
import re
from collections.abc import Sequence
from importlib.resources import files
from itertools import permutations

import pytest
from httpx import Response

from harness.people import World
from lockbox.pipelines import SET_CONTEXT, VARIABLES
from tests.http.door import Door, OpenDoor

SETTING = re.compile(r"(?:current_setting|set_config)\('lockbox\.(\w+)'")


def codes(answers: Sequence[Response]) -> list[tuple[int, str | None]]:
    return [(one.status_code, one.json().get("code")) for one in answers]


@pytest.fixture
def other(open_door: OpenDoor) -> World:
    """Another customer of the same vendor, with people of its own."""
    return open_door().world


def test_a_member_of_a_group_sets_every_session_variable_that_the_schema_reads() -> None:
    schema = "".join(one.read_text() for one in files("lockbox.schema").iterdir() if one.name.endswith(".sql"))

    assert set(SETTING.findall(schema)) == set(VARIABLES)
    assert SETTING.findall(str(SET_CONTEXT)) == list(VARIABLES)


def test_neighbours_in_a_group_are_answered_as_if_each_came_alone(door: Door, other: World) -> None:
    """In every order: one who may ask, one of another tenant, one who asks about somebody else, and a stranger."""
    door.active()
    world = door.world
    calls = {
        "gate": (world.tokens["gate"], world.question("erin"), (200, None)),
        "theirs": (other.tokens["gate"], other.question("erin"), (403, "no-open-window")),
        "erin": (world.tokens["erin"], world.question("erin"), (200, None)),
        "ann": (world.tokens["ann"], world.question("erin"), (403, "wrong-role")),
        "nobody": ("lbx_test_unknown", world.question("erin"), (401, "invalid-token")),
    }

    for order in permutations(calls):
        answers = door.together(
            *(
                door.client.get(
                    "/v1/access", params=calls[name][1], headers={"authorization": f"Bearer {calls[name][0]}"}
                )
                for name in order
            )
        )
        assert codes(answers) == [calls[name][2] for name in order]


def test_who_hangs_up_takes_only_the_own_answer_away(door: Door) -> None:
    door.active()

    async def calls() -> list[Response]:
        asked = [asyncio.create_task(door.coming("gate", "GET", "/v1/access", params=door.question())) for _ in "ab"]
        gone = asyncio.create_task(door.coming("gate", "GET", "/v1/access", params=door.question()))
        await asyncio.sleep(0.002)
        gone.cancel()
        return list(await asyncio.gather(*asked))

    assert codes(door.runner.run(calls())) == [(200, None)] * 2
