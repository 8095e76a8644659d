"""On whose side somebody acts, by the word that stands for what they are in an event."""

from lockbox.audit.events import THE_CLOCK, THE_OWNER, Actor
from lockbox.identity.roles import TENANT_ROLES, VENDOR_ROLES, Role, Side
from lockbox.requests.lifecycle import Party
from lockbox.sql import new_id
from tests.each import each

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


def test_every_word_for_what_somebody_is_has_a_side_or_is_nobody() -> None:
    assert SIDES.keys() == {*map(str, Role), *map(str, Party), *map(str, Side)}


@each("word", SIDES)
def test_somebody_acts_on_the_side_that_they_are_on(word: str) -> None:
    assert Actor(new_id(), word).side == SIDES[word]


def test_nobody_is_on_a_side() -> None:
    assert (THE_CLOCK.side, THE_OWNER.side) == (None, None)
