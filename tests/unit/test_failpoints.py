"""Failpoints: each has a scene, and a disabled one does nothing."""

import subprocess
import sys

import pytest

from catalogue.unsafe_settings import UnsafeSettings
from config.settings import load
from devstack.stack import CHECKOUT
from lockbox import failpoints
from lockbox.failpoints import KILLED, POINTS, UnknownFailpoint, failpoint, mark
from tests.database.postgres_target import OF_CLOSE, OF_OPEN
from tests.whole.failpoints.scenes import SCENES

SCRIPT = """
from lockbox import failpoints
failpoints.arm("clock.after_lock:2")
failpoints.failpoint("clock.after_move")
failpoints.failpoint("clock.after_lock")
print("still here", flush=True)
failpoints.failpoint("clock.after_lock")
print("never said", flush=True)
"""


def test_each_failpoint_is_reached_by_a_test_scene() -> None:
    of_connectors = {*OF_OPEN, *OF_CLOSE}
    assert {scene.name for scene in SCENES} | of_connectors == set(POINTS)
    assert len({scene.title for scene in SCENES}) >= len(POINTS) - len(of_connectors)


def test_the_failpoint_of_each_scene_is_a_valid_failpoint_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for scene in SCENES:
        monkeypatch.setenv("LOCKBOX_FAILPOINT", scene.point)
        assert load().failpoint == scene.point


def test_a_process_exits_at_its_failpoint_at_the_configured_occurrence() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], cwd=CHECKOUT, capture_output=True, text=True, check=False)

    assert ended.returncode == KILLED
    assert ended.stdout == "still here\n"
    assert ended.stderr == f"{mark('clock.after_lock')}\n"


def test_a_process_does_not_exit_at_disabled_failpoints() -> None:
    failpoints.arm(None)

    for name in POINTS:
        failpoint(name)


@pytest.mark.parametrize("chosen", ["clock.after_lunch", "clock.after_lunch:2"])
def test_an_unknown_failpoint_setting_is_refused(chosen: str) -> None:
    with pytest.raises(UnknownFailpoint, match=r"LOCKBOX_FAILPOINT: there is no clock\.after_lunch; lockbox/failp"):
        failpoints.arm(chosen)


@pytest.mark.parametrize(
    "chosen", ["after_lock", "clock.after_lock:0", "clock.after_lock:x", "Clock.after_lock", "."]
)
def test_a_malformed_failpoint_setting_is_refused(monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    monkeypatch.setenv("LOCKBOX_FAILPOINT", chosen)

    with pytest.raises(UnsafeSettings, match="LOCKBOX_FAILPOINT"):
        load()
