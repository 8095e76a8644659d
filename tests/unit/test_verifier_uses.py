"""The verifier of exports: no window for a number of uses was used more often, as far as the log says."""

from typing import Any

import pytest

from lockbox.audit.verifier.export_format import FindingKind
from lockbox.audit.verifier.verify import BAD, GOOD
from tests import second_verifier
from tests.logs import Log, SealedEvent, event, public
from tests.unit.test_verifier_approvals import ANN, REQUEST, SIGNER, approval, history, named
from tests.verification_results import verified

USED_UP: dict[str, Any] = {"action": "used_up", "max_uses": 2}
LAST_USED: dict[str, Any] = {"action": "last_used", "count": 2}
NO_MOVE: dict[str, Any] = {"seq": None, "to_state": None, "request_id": REQUEST}


def used(*told: dict[str, Any], max_uses: Any = 2) -> list[SealedEvent]:
    """Return a request that was opened for so many uses, and what was told of them."""
    facts = {} if max_uses is None else {"max_uses": max_uses}
    asked, opened = history(approval(**facts), **facts)
    return [asked, opened, *(event(number, {}, **NO_MOVE | one) for number, one in enumerate(told, 2))]


def kinds(events: list[SealedEvent]) -> set[FindingKind]:
    """Return what is found, by both verifiers alike."""
    whole = Log(events).whole()
    result = verified(whole, keys=[named(SIGNER)])
    assert result.exit_code == (BAD if result.findings.kinds else GOOD)
    try:
        second_verifier.check(whole, [public().text, named(SIGNER).text])
    except second_verifier.VerificationFailed:
        assert result.exit_code == BAD
    else:
        assert result.exit_code == GOOD
    return set(result.findings.kinds)


@pytest.mark.parametrize("told", [(), (USED_UP,), (USED_UP, LAST_USED), (LAST_USED | {"count": 1},)])
def test_a_window_that_was_used_as_often_as_it_may_be_is_good(told: tuple[dict[str, Any], ...]) -> None:
    assert kinds(used(*told)) == set()


@pytest.mark.parametrize(
    "told",
    [
        (LAST_USED | {"count": 3},),
        (USED_UP, LAST_USED | {"count": 3}),
        (LAST_USED | {"count": "2"},),
        ({"action": "last_used"},),
        (USED_UP | {"max_uses": 3},),
        ({"action": "used_up"},),
        (USED_UP, USED_UP),
    ],
)
def test_a_window_that_was_used_too_often_is_found(told: tuple[dict[str, Any], ...]) -> None:
    assert kinds(used(*told)) == {FindingKind.USES}


def test_uses_of_another_window_and_of_one_for_any_number_are_not_compared() -> None:
    other = {"request_id": ANN, "seq": 1, "action": "submit", "to_state": "pending"}
    assert kinds(used(other, LAST_USED | {"count": 3, "request_id": ANN})) == set()
    assert kinds(used(LAST_USED | {"count": 3}, max_uses=None)) == set()


def test_what_a_finding_says() -> None:
    result = verified(Log(used(LAST_USED | {"count": 3})).whole(), keys=[named(SIGNER)])

    (finding,) = result.findings.first
    assert (finding.message, finding.number) == (f"request {REQUEST} was used 3 times, and was for 2", 2)
