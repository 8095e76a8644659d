"""Who reads what of a request: the table of fields and capacities, written out by hand."""

from collections.abc import Set as AbstractSet
from itertools import pairwise
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbox.audit.events import THE_CLOCK, THE_OWNER, Actor
from lockbox.identity.roles import (
    TENANT_ROLES,
    VENDOR_ROLES,
    Caller,
    ProtectedField,
    ReaderRole,
    Role,
    RoleGrant,
    Side,
    may_read,
    origin_of,
    reader_roles,
)
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests import prompt_tiers
from lockbox.requests.lifecycle import Party
from lockbox.requests.prompt_tiers import PromptedApprovers
from lockbox.sql import new_id
from tests.each import each
from tests.unit.policies import PEOPLE

COLUMNS = ("requester", "manager", "vendor_auditor", "tenant_admin", "approver", "auditor")
TABLE = {
    "justification": "yes yes no yes yes yes",
    "comment": "yes yes no yes yes yes",
    "vendor_origin": "no yes yes no no no",
    "customer_origin": "no no no yes yes yes",
}
CELLS = [
    (field, capacity, answer == "yes")
    for field, row in TABLE.items()
    for capacity, answer in zip(COLUMNS, row.split(), strict=True)
]
ME, TENANT, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)


def somebody(*standings: RoleGrant) -> Caller:
    return Caller(ME, "Somebody", frozenset(standings))


def test_the_table_of_readable_fields_covers_every_field_and_role() -> None:
    assert set(TABLE) == set(ProtectedField)
    assert set(COLUMNS) == set(ReaderRole)


@each(("field", "capacity", "reads"), CELLS)
def test_a_role_reads_the_fields_the_table_says(field: str, capacity: str, reads: bool) -> None:  # noqa: FBT001
    assert may_read(ProtectedField(field), {ReaderRole(capacity)}) is reads


@pytest.mark.parametrize("field", ProtectedField)
def test_a_person_without_roles_reads_no_field(field: ProtectedField) -> None:
    assert not may_read(field, frozenset())


def test_a_person_with_several_roles_reads_the_union_of_fields() -> None:
    assert may_read(ProtectedField.COMMENT, {ReaderRole.VENDOR_AUDITOR, ReaderRole.REQUESTER})


@pytest.mark.parametrize("role", [Role.TENANT_ADMIN, Role.APPROVER, Role.AUDITOR])
def test_a_role_at_another_tenant_does_not_let_a_person_read_fields(role: Role) -> None:
    at_home = reader_roles(somebody(RoleGrant(role, TENANT)), OTHER, TENANT)
    elsewhere = reader_roles(somebody(RoleGrant(role, OTHER)), OTHER, TENANT)

    assert at_home == {ReaderRole(role.value)}
    assert not elsewhere


@pytest.mark.parametrize("role", [Role.ENGINEER, Role.OPERATOR, Role.SYSTEM])
def test_engineers_operators_and_systems_read_only_their_own_requests(role: Role) -> None:
    assert reader_roles(somebody(RoleGrant(role)), OTHER, TENANT) == frozenset()
    assert reader_roles(somebody(RoleGrant(role)), ME, TENANT) == {ReaderRole.REQUESTER}


@pytest.mark.parametrize(
    ("role", "field"),
    [
        ("approver", ProtectedField.CUSTOMER_ORIGIN),
        ("tenant_admin", ProtectedField.CUSTOMER_ORIGIN),
        ("manager", ProtectedField.VENDOR_ORIGIN),
        ("requester", ProtectedField.VENDOR_ORIGIN),
        ("engineer", ProtectedField.VENDOR_ORIGIN),
        ("clock", ProtectedField.VENDOR_ORIGIN),
    ],
)
def test_a_deciders_address_and_browser_are_customer_or_vendor_data_depending_on_the_role(
    role: str, field: ProtectedField
) -> None:
    assert origin_of(role) is field


VENDORS_PARTIES = {Party.ENGINEER, Party.SYSTEM, Party.REQUESTER, Party.MANAGER, Party.OPERATOR}
SIDES: dict[str, str | None] = {
    **{role.value: Side.VENDOR for role in VENDOR_ROLES},
    **{role.value: Side.CUSTOMER for role in TENANT_ROLES},
    **{party.value: Side.VENDOR for party in VENDORS_PARTIES},
    Party.APPROVER.value: Side.CUSTOMER,
    Party.TENANT_ADMIN.value: Side.CUSTOMER,
    Side.VENDOR.value: Side.VENDOR,
    Side.CUSTOMER.value: Side.CUSTOMER,
    Party.CLOCK.value: None,
    Party.OWNER.value: None,
}


def test_the_table_of_sides_has_an_entry_for_each_role_and_party_and_side() -> None:
    assert SIDES.keys() == {*map(str, Role), *map(str, Party), *map(str, Side)}


@each("word", SIDES)
def test_a_person_acts_on_the_side_of_their_role(word: str) -> None:
    assert Actor(new_id(), word).side == SIDES[word]


def test_an_actor_without_a_role_has_no_side() -> None:
    assert (THE_CLOCK.side, THE_OWNER.side) == (None, None)


A, B, C, D, E = PEOPLE
KNOWN = st.builds(
    lambda managers, quiet: RecipientDirectory(managers=managers, quiet=quiet),
    st.dictionaries(st.sampled_from(PEOPLE), st.integers(1, 5)),
    st.sets(st.sampled_from(PEOPLE)),
)


def vendor(managers: dict[UUID, int], quiet: AbstractSet[UUID] = frozenset()) -> RecipientDirectory:
    """Return the vendor with these managers, each in a tier."""
    return RecipientDirectory(managers=managers, quiet=set(quiet))


def next_of(known: RecipientDirectory, asked: int, to: int) -> PromptedApprovers:
    """Return the managers whom the next tiers add to those already asked; the requester is E."""
    return prompt_tiers.wider_reviewers(
        known, E, informed=prompt_tiers.reviewers_so_far(known, E, asked), asked=asked, to=to
    )


def test_the_lowest_manager_tier_with_someone_besides_the_requester_is_asked_first() -> None:
    assert prompt_tiers.first_reviewers(vendor({A: 1, B: 1, C: 2}), E) == PromptedApprovers(1, frozenset({A, B}))
    assert prompt_tiers.first_reviewers(vendor({E: 1, C: 3, D: 4}), E) == PromptedApprovers(3, frozenset({C}))
    assert not prompt_tiers.first_reviewers(vendor({E: 1}), E).people


def test_if_a_manager_tier_adds_no_one_the_next_tier_is_asked() -> None:
    known = vendor({A: 1, E: 2, C: 4, D: 5})

    assert next_of(known, 1, 2) == PromptedApprovers(4, frozenset({C}))
    assert next_of(known, 4, 5) == PromptedApprovers(5, frozenset({D}))
    assert next_of(known, 5, 6) == PromptedApprovers(5, frozenset())


def test_managers_with_prompts_off_are_asked_only_if_no_one_else_is_left() -> None:
    known = vendor({A: 1, B: 1, C: 2, D: 3}, quiet={A, C})

    assert prompt_tiers.first_reviewers(known, E).people == {B}
    assert next_of(known, 1, 2) == PromptedApprovers(3, frozenset({D}))
    assert prompt_tiers.first_reviewers(vendor({A: 1, B: 2}, quiet={A}), E) == PromptedApprovers(1, frozenset({A}))


def test_without_tiers_all_managers_are_asked_except_the_requester_and_managers_who_opted_out() -> None:
    assert prompt_tiers.reviewers_so_far(vendor({A: 1, B: 2, C: 5, E: 1}, quiet={C}), E, 0) == {A, B}
    assert prompt_tiers.reviewers_so_far(vendor({A: 1, C: 5}, quiet={A, C}), E, 0) == {A, C}


@given(KNOWN, st.sampled_from(PEOPLE))
def test_some_manager_is_asked_if_any_can_endorse_and_no_later_tier_drops_a_manager(
    known: RecipientDirectory, requester_id: UUID
) -> None:
    others = known.managers.keys() - {requester_id}
    asked = [prompt_tiers.reviewers_so_far(known, requester_id, count) for count in range(1, 6)]

    assert all(fewer <= more <= others for fewer, more in pairwise(asked))
    assert bool(prompt_tiers.first_reviewers(known, requester_id).people) is bool(others)
    assert asked[-1] >= others - known.quiet
