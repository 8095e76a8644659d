"""The table of moves in docs/concepts.md is the code's."""

import re
from operator import attrgetter
from pathlib import Path

from lockbox.facts.enumerations import State
from lockbox.requests.lifecycle import MOVES

_states_after = attrgetter("to", "instead", "pre_approved")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "concepts.md"
ROW = re.compile(r"^\| (\N{EN DASH}|[a-z]+) \| ([a-z_]+) \| ([a-z_, ]+) \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)


def test_the_concepts_page_lists_exactly_the_moves() -> None:
    shown = {}
    rows = [row for row in ROW.findall(PAGE.read_text()) if row[0] in {"\N{EN DASH}", *State}]
    for state, action, parties, to in rows:
        words = re.findall(r"reviewing|pending|active|denied|cancelled|timed_out|completed|revoked|expired", to)
        shown[(None if state == "\N{EN DASH}" else state, action)] = (set(parties.split(", ")), set(words))

    known = {
        (state, action): (set(map(str, move.by)), {str(to) for to in _states_after(move) if to})
        for (state, action), move in MOVES.items()
    }
    assert shown == known
