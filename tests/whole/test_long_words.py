"""What is long: words without a blank, texts of thousands of lines. No page grows wider, and nothing is hidden."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from lockbox.ids import new_id
from tests.whole import people
from tests.whole.conftest import Stage
from tests.whole.people import PHONE, Desk, desk_of, overflow, violations

pytestmark = [
    pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING),
    pytest.mark.timeout(240),
]

LAPTOP = ViewportSize(width=1280, height=800)
LINES = "A\n" * 1990


@pytest.fixture(scope="module")
def desk(stage: Stage) -> Iterator[Desk]:
    """A browser for all."""
    with desk_of(stage) as found:
        yield found


def top(page: Page, selector: str) -> float:
    """Return how far below the top of the page something begins."""
    box = page.locator(selector).first.bounding_box()
    assert box is not None
    return float(box["y"])


@pytest.mark.parametrize("size", [PHONE, LAPTOP], ids=["phone", "laptop"])
@pytest.mark.parametrize("java_script_enabled", [True, False], ids=["script", "plain"])
def test_a_long_reason_hides_neither_the_clocks_nor_the_answer(
    stage: Stage, desk: Desk, size: ViewportSize, *, java_script_enabled: bool
) -> None:
    world = stage.world(approval_window=900)
    request = world.fresh(justification=LINES, resources=[f"mailbox:{new_id()}@contoso.example" for _ in range(50)])
    ann = desk.person(world, "ann", viewport=size, java_script_enabled=java_script_enabled)

    ann.goto(f"/requests/{request.id}")

    clock = ann.locator("#facts dt", has_text="Answer by").bounding_box()
    assert clock is not None
    assert clock["y"] < size["height"]
    assert top(ann, "#answer") < 2.5 * size["height"]
    jump = ann.get_by_role("link", name="What you can do")
    expect(jump).to_be_in_viewport()
    jump.click()
    expect(ann.locator("#answer-title")).to_be_in_viewport()
    assert overflow(ann) <= 0


def test_a_long_reason_is_read_by_keys_and_printed_whole(stage: Stage, desk: Desk) -> None:
    world = stage.world(approval_window=900, review_window=900, vendor_review=True)
    request = world.fresh(justification=LINES + "the end")
    max_ = desk.person(world, "max")

    for path in (f"/requests/{request.id}", "/review"):
        max_.goto(path)
        why = max_.get_by_role("group", name="Justification")
        on_screen = why.evaluate("one => [one.clientHeight, one.scrollHeight]")
        why.focus()
        max_.keyboard.press("End")
        expect(why).to_be_focused()
        max_.wait_for_function("one => one.scrollTop > 1000", arg=why.element_handle())
        found = violations(max_)
        max_.emulate_media(media="print")
        printed = why.evaluate("one => [one.clientHeight, one.scrollHeight]")
        max_.emulate_media(media="screen")

        assert on_screen[0] < 250
        assert on_screen[1] > 40_000
        assert printed[0] == printed[1] > 40_000
        assert found == []


def test_a_short_reason_stands_as_it_is(stage: Stage, desk: Desk) -> None:
    world = stage.world(approval_window=900)
    request = world.fresh(justification="It does not open.\nSince Monday.")
    ann = desk.person(world, "ann")

    ann.goto(f"/requests/{request.id}")

    expect(ann.locator("#facts")).to_contain_text("It does not open.")
    assert ann.locator("#facts [tabindex]").count() == 0
