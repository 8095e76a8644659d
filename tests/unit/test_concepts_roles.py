"""The table of roles in docs/concepts.md says what the code lets each role do."""

import re
from pathlib import Path

from lockbox.identity.roles import TENANT_ROLES, VISIBILITY_SCOPES, Role, Side
from lockbox.requests.lifecycle import MOVES, Party

PAGE = Path(__file__).resolve().parents[2] / "docs" / "concepts.md"
DASH = "\N{EN DASH}"
ROW = re.compile(r"^\| ([a-z_]+) \| (vendor|customer) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
SHOWN = {role: cells for role, *cells in ROW.findall(PAGE.read_text())}
PARTIES = {
    Role.ENGINEER: {Party.ENGINEER, Party.REQUESTER},
    Role.MANAGER: {Party.MANAGER},
    Role.OPERATOR: {Party.OPERATOR},
    Role.SYSTEM: {Party.SYSTEM},
    Role.TENANT_ADMIN: {Party.TENANT_ADMIN},
    Role.APPROVER: {Party.APPROVER},
}


def words(cell: str) -> set[str]:
    return set() if cell == DASH else set(cell.split(", "))


def test_every_role_is_listed_on_the_concepts_page_with_its_side() -> None:
    sides = {role.value: Side.CUSTOMER if role in TENANT_ROLES else Side.VENDOR for role in Role}

    assert {role: cells[0] for role, cells in SHOWN.items()} == sides


def test_a_role_is_listed_on_the_concepts_page_with_exactly_its_moves() -> None:
    shown = {role: words(cells[1]) for role, cells in SHOWN.items()}

    known = {
        role.value: {str(action) for (_, action), move in MOVES.items() if move.by & PARTIES.get(role, set())}
        for role in Role
    }
    assert shown == known


def test_a_role_is_listed_on_the_concepts_page_with_what_it_may_read() -> None:
    assert {role: cells[2] for role, cells in SHOWN.items()} == {
        role.value: VISIBILITY_SCOPES[role].value for role in Role
    }
