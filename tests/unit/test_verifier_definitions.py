"""The verifier of exports: a log tells of every definition that a gate had since the tenant is there."""

from typing import Any

import pytest

from lockbox.audit.verifier.export_format import FindingKind
from tests.logs import Log, event
from tests.verification_results import verified

A, B, C = "a" * 64, "b" * 64, "c" * 64


def said(action: str, sha256: Any, before: Any = None, service: Any = "mail") -> dict[str, Any]:
    facts = {
        "action": action,
        "service": service,
        "sha256": sha256,
        "seq": None,
        "to_state": None,
        "request_id": None,
    }
    return facts | ({} if before is None else {"before": before})


FIRST = said("gate_defined", A)


def kinds(*told: dict[str, Any]) -> set[FindingKind]:
    """Return what is found; the second verifier agrees on whether anything is."""
    return set(verified(Log([event(number, {}, **one) for number, one in enumerate(told)]).whole()).findings.kinds)


@pytest.mark.parametrize(
    "told",
    [
        (FIRST,),
        (FIRST, said("gate_redefined", B, A), said("gate_redefined", A, B)),
        (FIRST, said("gate_redefined", C, B, "drive")),
        (said("gate_redefined", C, B), said("gate_redefined", A, C)),
        (FIRST, said("gate_redefined", B)),
    ],
)
def test_a_log_that_tells_of_each_definition_is_good(told: tuple[dict[str, Any], ...]) -> None:
    assert kinds(*told) == set()


def test_a_definition_that_the_log_leaves_out_is_found() -> None:
    assert kinds(FIRST, said("gate_redefined", C, B)) == {FindingKind.GATE}


@pytest.mark.parametrize(
    "told",
    [
        said("gate_defined", "x"),
        said("gate_redefined", B, "x"),
        said("gate_defined", None),
        said("gate_defined", A, service=1),
    ],
)
def test_an_event_that_says_no_digest_is_found(told: dict[str, Any]) -> None:
    assert kinds(FIRST, told) == {FindingKind.MALFORMED}
