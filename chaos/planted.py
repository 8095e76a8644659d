"""`python -m chaos.planted BUG MODULE …`: run a process of ours with a bug in it, to see whether a check finds it."""

import runpy
import sys
from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from inspect import signature
from typing import Any
from uuid import UUID

from lockbox_guard import database_clock

from gate.mapping import GateCall, MappedCall, ServiceMapping
from gate.window_memory import RememberedWindow, WindowMemory
from lockbox.requests import deadlines, permitted_moves
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest, RequestEntry
from lockbox.requests.permitted_moves import OPENING
from lockbox.requests.policy import Terms

NEVER = datetime(9999, 1, 1, tzinfo=UTC)
A_DAY = 86_400.0
LATE = timedelta(seconds=1.6)
"""Often long enough for two heartbeats after the first second, but less than two seconds."""


def _late_yes() -> None:
    """Accept an approval whose time has run out. Only this one rule refuses it; no trigger checks it."""
    too_late_at = deadlines.too_late_at

    def never(action: Action, terms: Terms, **facts: Any) -> datetime:  # noqa: ANN401 - as the rule takes them
        return NEVER if action in OPENING else too_late_at(action, terms, **facts)

    # The rule is used in one module, which has imported it by name.
    vars(permitted_moves)["too_late_at"] = never


def _deaf_gate() -> None:
    """Make the gate's memory miss all ends: it takes windows in, and drops none before its deadline."""
    replace = WindowMemory._replace

    def keep(memory: WindowMemory, request: int, window: RememberedWindow | None) -> None:
        if window is not None:
            replace(memory, request, window)

    _patch(WindowMemory, "_replace", keep)


def _lost_window() -> None:
    """Make the gate's memory miss one window of four; Postgres is asked about these."""
    replace = WindowMemory._replace

    def lose(memory: WindowMemory, request: int, window: RememberedWindow | None) -> None:
        replace(memory, request, window if request % 4 else None)

    _patch(WindowMemory, "_replace", lose)


def _slow_memory() -> None:
    """Make the gate take in each window more than one second, and less than two, after its approval."""
    put = WindowMemory.put

    def later(
        memory: WindowMemory, entries: Sequence[RequestEntry], judged: Sequence[UUID], extended: Container[UUID]
    ) -> list[UUID]:
        opened = {entry.request.id: entry.request.opened_at for entry in entries}
        young = {one for one, at in opened.items() if at and memory.now() - at < LATE}
        old = [entry for entry in entries if entry.request.id not in young]
        # The requests returned are verified again at the next read.
        return put(memory, old, [one for one in judged if one not in young], extended) + list(young)

    _patch(WindowMemory, "put", later)


def _late_gate() -> None:
    """Make the gate believe that the database's clock is an hour behind, so that no deadline has passed."""
    note_read = WindowMemory.note_read

    def behind(memory: WindowMemory, began: float, at: datetime, in_doubt: Collection[UUID] = ()) -> None:
        note_read(memory, began, at - timedelta(hours=1), in_doubt)

    _patch(WindowMemory, "note_read", behind)


def _other_mailbox() -> None:
    """Make the gate take each call as one about another mailbox: the part of its name after the last hyphen."""
    map_call = ServiceMapping.map

    def other(mapping: ServiceMapping, call: GateCall) -> MappedCall:
        mapped = map_call(mapping, call)
        kind, _, address = mapped.resource.partition(":")
        name, _, domain = address.partition("@")
        return mapped._replace(resource=f"{kind}:{name.rpartition('-')[2]}@{domain}")

    _patch(ServiceMapping, "map", other)


def _open_guard() -> None:
    """Let a guard that is cut off continue with what it last heard."""
    vars(database_clock)["QUIET_SECONDS"] = A_DAY


def _early_gate() -> None:
    """Let windows begin when they are approved, even if access is to begin later."""

    def runs(request: AccessRequest, at: datetime) -> bool:
        return at < request.deadline_at

    _patch(AccessRequest, "runs_at", runs)


def _any_step() -> None:
    """Let people of a later step approve at once. Only this one rule refuses it."""
    vars(permitted_moves)["has_turn"] = lambda *_: True


def _patch(owner: type, name: str, function: Callable[..., object]) -> None:
    ours, theirs = (list(signature(one).parameters) for one in (function, vars(owner)[name]))
    if len(ours) != len(theirs):
        raise TypeError(f"{owner.__name__}.{name} takes {theirs}, and the bug in its place {ours}: change the bug")
    setattr(owner, name, function)


@dataclass(frozen=True)
class PlantedBug:
    """A bug: its process, and the function that plants it there, in every check that would hide it."""

    process: str
    plant: Callable[[], None]


BUGS = {
    "late-yes": PlantedBug("api", _late_yes),
    "deaf-gate": PlantedBug("api", _deaf_gate),
    "lost-window": PlantedBug("api", _lost_window),
    "slow-memory": PlantedBug("api", _slow_memory),
    "late-gate": PlantedBug("api", _late_gate),
    "other-mailbox": PlantedBug("api", _other_mailbox),
    "open-guard": PlantedBug("guard", _open_guard),
    "early-gate": PlantedBug("api", _early_gate),
    "any-step": PlantedBug("api", _any_step),
}


def main() -> None:
    """Plant the bug, and run the module as if it had been started by itself."""
    bug, module, *rest = sys.argv[1:]
    BUGS[bug].plant()
    sys.argv = [module, *rest]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
