"""A gate's definition in the catalogue, and the differences of two definitions in words. Pure."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Self

from catalogue.service_catalogue import Catalogue

MOST_SHOWN = 10
"""How many lines of a part are shown on each side of a difference; further lines are only counted."""
LONGEST_LINE = 300
NOTHING, ANOTHER_CUSTOMER = "none", "another customer"
TENANT, FIXED = "tenant", "fixed"
PARTS = {
    "paths": "paths",
    "ignored_query": "ignored parameters",
    "escaped": "escaped characters",
    "actions": "actions",
    TENANT: "customer",
    "callers": "callers",
    "issuers": "issuers",
}
"""The parts that decide what a call at a gate uses and who makes it, with their names."""


class GateDefinition:
    """`body` is canonical JSON without fields that have no value. It does not say whether the gate enforces."""

    __slots__ = ("_parts", "body")

    def __init__(self, body: str) -> None:
        self.body = body
        self._parts: Mapping[str, Any] = json.loads(body)

    @classmethod
    def of(cls, catalogue: Catalogue, service: str) -> Self:
        known = catalogue.services[service]
        if known.gate is None:
            raise ValueError(f"add `gate` to the service {service} in the catalogue: there is nothing to define")
        gate = known.gate.model_dump(mode="json", exclude_none=True, exclude={"enforcement"})
        issuers = [issuer.model_dump(mode="json", exclude_none=True) for issuer in catalogue.issuers]
        said = gate | {
            "escaped": sorted(gate["escaped"]),
            "ignored_query": sorted(gate["ignored_query"]),
            "paths": _in_order({**rule, "methods": sorted(rule["methods"])} for rule in gate["paths"]),
            "actions": sorted(known.actions),
            "issuers": _in_order(
                {**issuer, "algorithms": sorted(issuer["algorithms"]), "azp": sorted(issuer["azp"])}
                for issuer in issuers
            ),
        }
        return cls(_written(said))

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.body.encode()).digest()

    @property
    def only_tenant(self) -> str | None:
        """The slug of the only tenant whose calls the gate decides; None if calls of any tenant can come."""
        fixed = self._parts[TENANT].get(FIXED)
        return None if fixed is None else str(fixed)

    @property
    def paths(self) -> int:
        return len(self._parts["paths"])

    def differs(self, other: Self, part: str) -> bool:
        return bool(self._parts.get(part) != other._parts.get(part))

    def lines(self, part: str, reader: str | None) -> list[str]:
        """Return a part in words for a tenant's reader, or for the vendor (None).

        A tenant does not see other tenants' names.
        """
        said = self._parts.get(part, [])
        if part == "paths":
            return [_path(rule) for rule in said]
        if part == TENANT and reader is not None and said.get(FIXED, reader) != reader:
            return [f"{FIXED}: {ANOTHER_CUSTOMER}"]
        if isinstance(said, Mapping):
            return [_fields(said)]
        return [_fields(one) if isinstance(one, Mapping) else str(one) for one in said]


@lru_cache(64)
def differences(before: str, after: str, reader: str | None) -> Mapping[str, tuple[str, str]]:
    old, new = GateDefinition(before), GateDefinition(after)
    found = {}
    for part, name in PARTS.items():
        if old.differs(new, part):
            was, now = old.lines(part, reader), new.lines(part, reader)
            found[name] = _listed(one for one in was if one not in now), _listed(one for one in now if one not in was)
    return found


def definitions(catalogue: Catalogue) -> dict[str, GateDefinition]:
    return {
        name: GateDefinition.of(catalogue, name)
        for name, service in catalogue.services.items()
        if service.gate is not None
    }


def _written(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _in_order(parts: Iterable[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    return sorted(parts, key=_written)


def _path(rule: Mapping[str, Any]) -> str:
    query = "&".join(f"{name}={value}" for name, value in sorted(rule["query"].items()))
    target = f"{rule['path']}?{query}" if query else rule["path"]
    return f"{' '.join(rule['methods'])} {target} is {rule['action']} of {rule['resource']}"


def _fields(said: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {_value(value)}" for name, value in sorted(said.items()))


def _value(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _listed(lines: Iterable[str]) -> str:
    return "; ".join(_some(list(lines))) or NOTHING


def _some(lines: Sequence[str]) -> Iterator[str]:
    for line in lines[:MOST_SHOWN]:
        yield line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"
    if len(lines) > MOST_SHOWN:
        yield f"and {len(lines) - MOST_SHOWN} more"
