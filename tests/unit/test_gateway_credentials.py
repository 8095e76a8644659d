"""Tokens of gateways: how long they are remembered, when they are looked up again, and limits for unknown ones."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

import pytest

from gate import credentials
from gate.answers import GateReason
from gate.credentials import KEPT_SECONDS, MOST_STRANGERS, RENEWED_SECONDS, GatewayCredential, GatewayCredentials
from gate.dialects import Dialect
from lockbox.database import UnitOfWork
from lockbox.errors import NotSignedIn
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity.roles import Caller, Role, RoleGrant, Scope, Side

Answer = TypeVar("Answer")
TOKEN, ACCOUNT = UUID(int=1), UUID(int=2)


class LookUps:
    """Answers each look-up with the caller that the test names, as soon as the test lets it."""

    def __init__(self, *scopes: str, role: Role = Role.SYSTEM) -> None:
        standings = frozenset({RoleGrant(role, None)})
        limits = (frozenset(scopes), frozenset({"mail"}))
        self.caller = Caller(ACCOUNT, "nginx", standings, *limits, Side.VENDOR, AuthMethod.TOKEN, TOKEN)
        self.count = 0
        self.error: Exception | None = None
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def run(self, use_case: Callable[[UnitOfWork], Answer], *, key: str | None = None) -> Any:  # noqa: ARG002
        self.count += 1
        await self.goes_on.wait()
        if self.error is not None:
            raise self.error
        return self.caller


class Later:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    clock = Later()
    monkeypatch.setattr(credentials, "BOOT_CLOCK", clock)
    return clock


def test_a_remembered_gateway_token_is_looked_up_again_only_shortly_before_it_expires(later: Later) -> None:
    async def asked() -> None:
        calls = LookUps(Scope.GATE_NGINX)
        known = GatewayCredentials(calls, "test")
        found = await known.find(b"one")
        assert found == GatewayCredential(TOKEN, ACCOUNT, frozenset({"mail"}), Dialect.NGINX)
        later.at += KEPT_SECONDS - RENEWED_SECONDS
        assert (await known.find(b"one"), calls.count) == (found, 1)

        later.at += 0.1
        calls.goes_on.clear()
        assert await known.find(b"one") == await known.find(b"one") == found
        await asyncio.sleep(0)
        assert calls.count == 2
        calls.goes_on.set()
        await asyncio.sleep(0.01)
        later.at += KEPT_SECONDS - 0.1
        assert (await known.find(b"one"), calls.count) == (found, 2)

    asyncio.run(asked())


def test_a_revoked_gateway_token_is_refused_after_five_seconds_at_most(later: Later) -> None:
    async def asked() -> None:
        calls = LookUps(Scope.GATE_NGINX)
        known = GatewayCredentials(calls, "test")
        await known.find(b"one")
        calls.error = NotSignedIn("The token is unknown or revoked.")
        assert isinstance(await known.find(b"one"), GatewayCredential)
        later.at += KEPT_SECONDS
        assert await known.find(b"one") is GateReason.NO_CREDENTIAL
        assert await known.find(b"one") is GateReason.NO_CREDENTIAL
        assert calls.count == 2

    asyncio.run(asked())


def test_after_a_message_about_a_gateway_token_the_gate_looks_up_that_token_again(later: Later) -> None:
    assert later.at

    async def asked() -> None:
        calls = LookUps(Scope.GATE_NGINX)
        known = GatewayCredentials(calls, "test")
        await known.find(b"one")
        calls.error = NotSignedIn("The token is unknown or revoked.")
        known.forget([str(ACCOUNT)])
        assert isinstance(await known.find(b"one"), GatewayCredential)
        known.forget([str(TOKEN)])
        assert await known.find(b"one") is GateReason.NO_CREDENTIAL

    asyncio.run(asked())


@pytest.mark.parametrize("error", [OSError(), TimeoutError()])
def test_without_postgres_no_gateway_token_is_accepted_or_remembered_as_invalid(
    later: Later, error: Exception
) -> None:
    async def asked() -> None:
        calls = LookUps(Scope.GATE_NGINX)
        known = GatewayCredentials(calls, "test")
        await known.find(b"one")
        calls.error = error
        later.at += KEPT_SECONDS
        assert await known.find(b"one") is GateReason.BEHIND
        calls.error = None
        assert isinstance(await known.find(b"one"), GatewayCredential)

    asyncio.run(asked())


def test_only_a_few_unknown_gateway_tokens_are_looked_up_at_once(later: Later) -> None:
    async def asked() -> None:
        calls = LookUps(Scope.GATE_NGINX)
        known = GatewayCredentials(calls, "test")
        good = await known.find(b"one")
        later.at += KEPT_SECONDS
        calls.goes_on.clear()
        strangers = [asyncio.create_task(known.find(f"{number}".encode())) for number in range(MOST_STRANGERS + 3)]
        await asyncio.sleep(0)
        waiting = asyncio.create_task(known.find(b"one"))
        await asyncio.sleep(0.01)
        calls.goes_on.set()

        assert await waiting == good
        answers = await asyncio.gather(*strangers)
        assert answers.count(GateReason.BUSY) == 3

    asyncio.run(asked())


@pytest.mark.parametrize(
    ("scopes", "role"),
    [
        ((), Role.SYSTEM),
        ((Scope.ACCESS_CHECK,), Role.SYSTEM),
        ((Scope.GATE_NGINX, Scope.GATE_CADDY), Role.SYSTEM),
        ((Scope.GATE_NGINX,), Role.ENGINEER),
    ],
)
def test_a_non_gateway_token_is_not_accepted(scopes: tuple[str, ...], role: Role) -> None:
    async def asked() -> None:
        assert await GatewayCredentials(LookUps(*scopes, role=role), "test").find(b"one") is GateReason.NO_CREDENTIAL

    asyncio.run(asked())
