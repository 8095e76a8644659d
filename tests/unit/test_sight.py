"""Who reads what of a request: the table of fields and capacities, written out by hand."""

from uuid import UUID

import pytest

from lockbox.identity.roles import (
    Caller,
    ProtectedField,
    ReaderRole,
    Role,
    RoleGrant,
    may_read,
    origin_of,
    reader_roles,
)
from tests.each import each

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


def test_the_table_has_every_field_and_every_capacity() -> None:
    assert set(TABLE) == set(ProtectedField)
    assert set(COLUMNS) == set(ReaderRole)


@each(("field", "capacity", "reads"), CELLS)
def test_a_capacity_reads_what_the_table_says(field: str, capacity: str, reads: bool) -> None:  # noqa: FBT001
    assert may_read(ProtectedField(field), {ReaderRole(capacity)}) is reads


@pytest.mark.parametrize("field", ProtectedField)
def test_nobody_in_particular_reads_nothing(field: ProtectedField) -> None:
    assert not may_read(field, frozenset())


def test_several_capacities_read_what_any_of_them_reads() -> None:
    assert may_read(ProtectedField.COMMENT, {ReaderRole.VENDOR_AUDITOR, ReaderRole.REQUESTER})


@pytest.mark.parametrize("role", [Role.TENANT_ADMIN, Role.APPROVER, Role.AUDITOR])
def test_a_role_at_another_tenant_is_no_capacity(role: Role) -> None:
    at_home = reader_roles(somebody(RoleGrant(role, TENANT)), OTHER, TENANT)
    elsewhere = reader_roles(somebody(RoleGrant(role, OTHER)), OTHER, TENANT)

    assert at_home == {ReaderRole(role.value)}
    assert not elsewhere


@pytest.mark.parametrize("role", [Role.ENGINEER, Role.OPERATOR, Role.SYSTEM])
def test_engineers_operators_and_systems_read_only_what_they_asked_for(role: Role) -> None:
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
def test_an_origin_belongs_to_the_side_that_acted(role: str, field: ProtectedField) -> None:
    assert origin_of(role) is field
