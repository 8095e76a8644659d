"""The guard says of what it allows whether it was opened by break-glass, from its memory and from an answer."""

from contextlib import closing
from typing import Any

import pytest

from tests.unit.guard_lockbox import ERIN, USE, SmallLockbox, guard_of, window


@pytest.mark.parametrize("member", [True, False, None, "true", 1])
def test_the_member_of_a_window_is_told(member: object, monkeypatch: pytest.MonkeyPatch) -> None:
    facts: dict[str, Any] = {} if member is None else {"break_glass": member}
    with closing(SmallLockbox()) as lockbox, guard_of(lockbox, monkeypatch) as guard:
        lockbox.open(window(**facts))

        assert guard.check(**USE, engineer=ERIN).break_glass is (member is True)


@pytest.mark.parametrize("header", ["true", "false", None])
def test_the_header_of_an_answer_is_told(header: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    about = {} if header is None else {"break-glass": header}
    with closing(SmallLockbox()) as lockbox, guard_of(lockbox, monkeypatch) as guard:
        token = lockbox.knows("erin's")
        lockbox.says_yes("Bearer erin's", **about)

        assert guard.check(**USE, token=token).break_glass is (header == "true")
