"""Find contradictions in a catalogue's gates. Pure."""

from collections.abc import Collection, Iterable, Iterator

from catalogue.gate_document import PathRule, ServiceGate
from catalogue.gate_templates import TextTemplate, parse_path, parse_resource, parse_value
from catalogue.source import CatalogueProblem, Place


def gate_problems(
    gate: ServiceGate, place: Place, actions: Collection[str], issuers: Collection[str]
) -> Iterator[CatalogueProblem]:
    if gate.callers.issuer is not None and gate.callers.issuer not in issuers:
        said = "add this issuer under `issuers` at the top level, or name one that is there"
        yield CatalogueProblem((*place, "callers", "issuer"), said)
    if not issuers and not gate.callers.headers:
        said = "add an issuer under `issuers` at the top level, or a header here: else nobody can say who calls"
        yield CatalogueProblem((*place, "callers"), said)
    if len(set(gate.callers.headers)) < len(gate.callers.headers):
        yield CatalogueProblem((*place, "callers", "engineer_header"), "name another header than `subject_header`")
    if gate.tenant.header is not None and gate.tenant.header.lower() in gate.callers.headers:
        yield CatalogueProblem((*place, "tenant", "header"), "name another header than `callers` does")
    yield from _of_ignored(gate, place)
    for number, rule in enumerate(gate.paths):
        at = (*place, "paths", number)
        yield from _of_variables(rule, at, gate.tenant.path)
        yield from _of_texts(rule, at, gate, actions)
        for earlier in range(number):
            if is_ambiguous(gate.paths[earlier], rule):
                said = f"some request would match paths[{earlier}] ({gate.paths[earlier].path}) too; make them differ"
                yield CatalogueProblem((*at, "path"), said)


def is_ambiguous(one: PathRule, other: PathRule) -> bool:
    """Return whether some request matches both rules."""
    if not set(one.methods) & set(other.methods) or one.query.keys() != other.query.keys():
        return False
    here, there = parse_path(one.path), parse_path(other.path)
    if len(here) != len(there) or not all(a.meets(b) for a, b in zip(here, there, strict=True)):
        return False
    return not any(
        one.query[name] != other.query[name]
        and not parse_value(one.query[name]).variables
        and not parse_value(other.query[name]).variables
        for name in one.query
    )


def _of_ignored(gate: ServiceGate, place: Place) -> Iterator[CatalogueProblem]:
    named = {name.lower() for rule in gate.paths for name in rule.query}
    seen: set[str] = set()
    for number, name in enumerate(gate.ignored_query):
        if name.lower() in named:
            said = "remove it here: a path names this parameter under `query`"
            yield CatalogueProblem((*place, "ignored_query", number), said)
        if name.lower() in seen:
            yield CatalogueProblem((*place, "ignored_query", number), "name each parameter once, whatever its case")
        seen.add(name.lower())


def _of_variables(rule: PathRule, place: Place, tenant: str | None) -> Iterator[CatalogueProblem]:
    in_path = [segment.variable for segment in parse_path(rule.path) if segment.variable]
    known = set(in_path)
    for name, template in rule.query.items():
        for variable in parse_value(template).variables:
            if variable in known:
                said = f"use another name: {{{variable}}} is defined twice in this path and its query"
                yield CatalogueProblem((*place, "query", name), said)
            known.add(variable)
    if tenant is not None and tenant not in in_path:
        yield CatalogueProblem((*place, "path"), f"add {{{tenant}}} as a segment: `tenant` takes it from each path")
    used = {tenant}
    for field, parts in (("resource", parse_resource(rule.resource)), ("action", parse_value(rule.action))):
        used.update(parts.variables)
        yield from _undefined(parts, known, (*place, field))
    for variable in in_path:
        if variable not in used:
            said = f"use {{{variable}}} in the resource or the action, or write {{}} for any one segment"
            yield CatalogueProblem((*place, "path"), said)
    for name, template in rule.query.items():
        if unused := set(parse_value(template).variables) - used:
            said = f"use {{{unused.pop()}}} in the resource or the action, or list {name} under `ignored_query`"
            yield CatalogueProblem((*place, "query", name), said)


def _undefined(parts: TextTemplate, known: Collection[str], place: Place) -> Iterable[CatalogueProblem]:
    for variable in dict.fromkeys(parts.variables):
        if variable not in known:
            yield CatalogueProblem(place, f"define {{{variable}}} in `path` or `query`, or remove it")


def _of_texts(
    rule: PathRule, place: Place, gate: ServiceGate, actions: Collection[str]
) -> Iterator[CatalogueProblem]:
    if not parse_value(rule.action).variables and rule.action not in actions:
        yield CatalogueProblem((*place, "action"), f"name one of the service's actions: {', '.join(actions)}")
    for number, method in enumerate(rule.methods):
        if method in rule.methods[:number]:
            yield CatalogueProblem((*place, "methods", number), "name each method once")
    literals = "".join(segment.literal or "" for segment in parse_path(rule.path))
    if escaped := [mark for mark in gate.escaped if mark in literals]:
        said = f"leave {' '.join(escaped)} out of the path's text, or out of `escaped`: no request would match"
        yield CatalogueProblem((*place, "path"), said)
    lowered = [name.lower() for name in rule.query]
    for name in rule.query:
        if lowered.count(name.lower()) > 1:
            yield CatalogueProblem((*place, "query", name), "name each parameter once, whatever its case")
