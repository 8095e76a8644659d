"""Password attempts at Flower: one at a time for each address; an IPv6 network counts as one address."""

import asyncio
from time import monotonic

import pytest
from tornado.web import HTTPError

from worker.flower_access import AttemptGate

SECONDS = 0.2


async def tried(attempts: AttemptGate, *addresses: str, is_right: bool = False) -> tuple[float, list[int | None]]:
    """Try from all of these addresses at once; return how long it took, and the status of each refusal."""

    async def one(address: str) -> int | None:
        try:
            await attempts.judge(address, is_right=is_right)
        except HTTPError as refused:
            return refused.status_code
        return None

    began = monotonic()
    answers = await asyncio.gather(*map(one, addresses))
    return monotonic() - began, answers


def test_flower_checks_wrong_passwords_of_an_ipv6_network_one_after_the_other() -> None:
    attempts = AttemptGate(SECONDS)

    took, answers = asyncio.run(tried(attempts, *(f"2001:db8:1:2::{number:x}" for number in range(5))))

    assert took >= 5 * SECONDS
    assert answers == [401] * 5


def test_an_ipv6_network_shares_its_few_slots_at_flower() -> None:
    attempts = AttemptGate(SECONDS, most=2)

    _, answers = asyncio.run(tried(attempts, *(f"2001:db8:1:2::{number:x}" for number in range(6))))

    assert sorted(answers, key=str) == [401] * 2 + [429] * 4


@pytest.mark.parametrize("other", ["2001:db8:1:3::1", "192.0.2.2", "::ffff:192.0.2.2", "", "nonsense"])
def test_another_network_need_not_wait_at_flower_and_gets_a_slot(other: str) -> None:
    attempts = AttemptGate(SECONDS, most=1)

    async def told() -> list[int | None]:
        held = asyncio.create_task(tried(attempts, "2001:db8:1:2::1", "2001:db8:1:2::2"))
        await asyncio.sleep(0)
        _, answers = await tried(attempts, other, is_right=True)
        return [*(await held)[1], *answers]

    assert asyncio.run(told()) == [401, 429, None]


def test_an_ipv4_mapped_address_counts_as_the_ipv4_address_at_flower() -> None:
    attempts = AttemptGate(SECONDS, most=1)

    _, answers = asyncio.run(tried(attempts, "192.0.2.2", "::ffff:192.0.2.2"))

    assert sorted(answers, key=str) == [401, 429]
