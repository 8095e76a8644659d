"""Map a request at the gate to the tenant, resource and action that it uses; refuse uncertain requests.

Nothing is normalised: each target is accepted in one spelling only, so that the service reads exactly what the gate
read. The gate does not read bodies: it refuses gRPC, GraphQL and similar calls by their content type. Pure.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple
from urllib.parse import unquote, unquote_to_bytes

from catalogue.gate_document import SLUG, PathRule, ServiceGate, TenantSource
from catalogue.gate_templates import TENANT, TextTemplate, parse_host, parse_path, parse_resource, parse_value
from catalogue.service_catalogue import Service
from gate.call import SentHeaders
from lockbox.text_rules import check_resource

RefusalCode = Literal["unmapped", "malformed"]
PORT = re.compile(r":[0-9]*$")
PLAIN_WORD = re.compile(r"(?=.{1,24}$)\$?[a-z]+(?:[A-Z][a-z]+|[_-][a-z]+)*")
"""A segment or parameter that is probably a word of the service's interface, not the name of a thing or a secret."""
MOST_SEGMENTS, MOST_NAMES = 12, 8
MOST_BESIDE_A_TYPE = 120
"""Maximum length of an outline that also names a content type: reports keep 200 characters."""
CONTENT_TYPE = b"content-type"
IN_BODY = re.compile(
    rb"(?:^|[,\s])(application/(?:grpc|graphql|connect\+|json-?rpc|soap)|multipart/mixed)", re.IGNORECASE
)
"""The beginnings of content types whose bodies decide what is read and done."""
MOST_CHARACTERS = 2048
LETTERS = r"A-Za-z0-9._~\-"
PATH_MARKS = "!$&'()+,:=@"
QUERY_MARKS = "!$'(),:@"
ENCODED = ' "<>[]^`{|}'
"""ASCII characters that are accepted only percent-encoded: no URL may contain them literally (RFC 3986)."""
NEVER = {"%2F": "/", "%5C": "\\", "%3B": ";", "%25": "%", "%3F": "?", "%23": "#", "%2A": "*"}
"""Escapes that a gateway and a service may read as different requests."""
FORBIDDEN = {
    "#": "leave out the fragment, from # on",
    "\\": "leave out the backslash",
    ";": "leave out the semicolon: services disagree about what it separates",
    "*": "leave out the *: resources have none",
}
ESCAPE = re.compile(r"%(.{0,2})", re.DOTALL)
C1 = re.compile("[\x80-\x9f]")
HEX = re.compile(r"[0-9A-Fa-f]{2}")
NAME = re.compile(rf"[{LETTERS}]+")
NO_HEADERS = SentHeaders(())


class GateCall(NamedTuple):
    method: str
    target: str
    host: str = ""
    headers: SentHeaders = NO_HEADERS


class MappedCall(NamedTuple):
    tenant_slug: str
    service: str
    resource: str
    action: str
    path: str
    """The matching path of the catalogue, with the names of its parameters."""


class MappingRefused(Exception):  # noqa: N818 - the name says what went wrong
    """`malformed` if the spelling is refused, else `unmapped`."""

    def __init__(self, code: RefusalCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Route:
    """`sources` are numbers of segments and names of parameters.

    `resource` is a format string of the sources' values. `action` is a text or the index of a value. `tenant` is the
    number of a segment.
    """

    path: str
    sources: tuple[int | str, ...]
    literals: tuple[tuple[str, str], ...]
    resource: str
    action: str | int
    tenant: int


@dataclass(slots=True)
class _Node:
    """`routes` are the routes that end at this node, by their parameters' names."""

    literals: "dict[str, _Node]" = field(default_factory=dict)
    variable: "_Node | None" = None
    routes: dict[frozenset[str], list[_Route]] = field(default_factory=dict)


NO_NAMES: frozenset[str] = frozenset()
NO_PARAMETERS: Mapping[str, str] = {}
TenantReader = Callable[[GateCall, list[str], _Route], str]


class ServiceMapping:
    """The compiled mapping of one service. Raises ValueError if the service has no gate."""

    def __init__(self, name: str, service: Service) -> None:
        if service.gate is None:
            raise ValueError(f"add `gate` to the service {name} in the catalogue: it has no mapping")
        gate = service.gate
        self._name = name
        self._actions = frozenset(service.actions)
        self._escaped = gate.escaped
        self._matches = target_pattern(gate.escaped).fullmatch
        self._ignored = frozenset(gate.ignored_query)
        self._methods = _tree(gate)
        self._every = _Node()
        for rule in gate.paths:
            _grown(self._every, rule.path)
        self._words = _words(gate)
        self._tenant = _tenant_reader(gate.tenant)

    def map(self, call: GateCall) -> MappedCall:
        target = call.target
        if CONTENT_TYPE in call.headers.values:
            _check_is_told_by_path(call.headers)
        if len(target) > MOST_CHARACTERS or self._matches(target) is None:
            raise MappingRefused("malformed", explain(target, self._escaped))
        is_encoded = "%" in target
        if is_encoded:
            _check_encoded(target)
        path, _, query = target.partition("?")
        parameters = _parameters(query) if query else NO_PARAMETERS
        segments = path.split("/")
        route = self._route(call.method, segments, parameters)
        tenant = self._tenant(call, segments, route)
        values = [segments[at] if isinstance(at, int) else parameters[at] for at in route.sources]
        if is_encoded:
            values = [unquote(value, errors="strict") for value in values]
        resource = route.resource.format(*values)
        try:
            check_resource(resource)
        except ValueError as unfit:
            raise MappingRefused("malformed", f"the resource is refused: {unfit}") from None
        action = route.action
        if isinstance(action, int):
            action = values[action]
            if action not in self._actions:
                raise MappingRefused("unmapped", "the value that chooses the action is none of the service's actions")
        return MappedCall(tenant, self._name, resource, action, route.path)

    def outline(self, call: GateCall) -> str:
        """Return the path and parameter names of an unmapped request, without values.

        Variables of the catalogue become `{}`, and so do parts that are neither words of the catalogue nor plain
        words. A refused content type is appended.
        """
        path, _, query = call.target.partition("?")
        shown, node = [""], self._every
        for segment in path.split("/")[1:]:
            if len(shown) > MOST_SEGMENTS:
                shown.append("…")
                break
            literal = node.literals.get(segment)
            is_value = literal is None and node.variable is not None and segment != ""
            shown.append("{}" if is_value else self._plain(segment))
            node = literal or (node.variable if is_value else None) or _Node()
        names = sorted({self._plain(pair.partition("=")[0]) for pair in query.split("&")}) if query else []
        outlined = "/".join(shown) + (f"?{'&'.join(names[:MOST_NAMES])}" if names else "")
        kind = _told_by_body(call.headers)
        return f"{outlined[:MOST_BESIDE_A_TYPE]} with the content type {kind}" if kind else outlined

    def _plain(self, part: str) -> str:
        return part if part in self._words or PLAIN_WORD.fullmatch(part) else "{}"

    def _route(self, method: str, segments: list[str], parameters: Mapping[str, str]) -> _Route:
        root = self._methods.get(method)
        if root is None:
            raise MappingRefused("unmapped", f"no path of the catalogue takes the method {method[:20]!a}")
        ends = _ends(root, segments, 1)
        names = frozenset(parameters) - self._ignored if parameters else NO_NAMES
        for node in ends:
            for route in node.routes.get(names, ()):
                if not route.literals or all(parameters[name] == text for name, text in route.literals):
                    return route
        raise MappingRefused("unmapped", _unmapped(method, ends, names))


def _ends(node: _Node, segments: list[str], at: int) -> tuple[_Node, ...]:
    """Return the nodes whose routes fit the segments. Routes of different nodes name different parameters."""
    while at < len(segments):
        segment = segments[at]
        literal, variable = node.literals.get(segment), node.variable if segment else None
        at += 1
        if literal is not None:
            if variable is not None:
                return _ends(literal, segments, at) + _ends(variable, segments, at)
            node = literal
        elif variable is not None:
            node = variable
        else:
            return ()
    return (node,) if node.routes else ()


def _check_is_told_by_path(headers: SentHeaders) -> None:
    if CONTENT_TYPE in headers.repeated:
        raise MappingRefused("malformed", "send one Content-Type")
    if kind := _told_by_body(headers):
        raise MappingRefused(
            "unmapped",
            f"what a call with the content type {kind} does stands in its body, which the gate does not read: the "
            "service's own code has to check access",
        )


def _told_by_body(headers: SentHeaders) -> str:
    """Return the content type if it implies that the body decides what the call does; else an empty text."""
    found = IN_BODY.search(headers.values.get(CONTENT_TYPE, b""))
    return found[1].decode().lower() if found else ""


def _check_encoded(target: str) -> None:
    try:
        decoded = unquote_to_bytes(target).decode()
    except UnicodeDecodeError:
        reason = "percent-encode UTF-8: these bytes are something else"
        raise MappingRefused("malformed", reason) from None
    if found := C1.search(decoded):
        raise MappingRefused("malformed", f"leave out the control character U+{ord(found[0]):04X}")


def _parameters(query: str) -> Mapping[str, str]:
    pairs = query.split("&")
    found = dict(pair.split("=") for pair in pairs)
    if len(found) < len(pairs):
        raise MappingRefused("malformed", "send each parameter once")
    return found


def _unmapped(method: str, ends: tuple[_Node, ...], names: frozenset[str]) -> str:
    if not ends:
        return f"no path of the catalogue with the method {method} fits"
    taken = [route for node in ends for route in node.routes]
    if unknown := sorted(names.difference(*taken)):
        return f"the catalogue does not name the parameter {unknown[0]} for this path"
    wanted = " or ".join(sorted(", ".join(sorted(route)) or "no parameters" for route in taken))
    return f"this path takes {wanted}, with the values that the catalogue names"


def _tree(gate: ServiceGate) -> dict[str, _Node]:
    methods: dict[str, _Node] = {}
    for rule in gate.paths:
        route = _compiled(rule, gate.tenant.path)
        for method in rule.methods:
            node = _grown(methods.setdefault(method, _Node()), rule.path)
            node.routes.setdefault(frozenset(rule.query), []).append(route)
    return methods


def _grown(node: _Node, path: str) -> _Node:
    for segment in parse_path(path):
        if segment.literal is not None:
            node = node.literals.setdefault(segment.literal, _Node())
        else:
            node.variable = node.variable or _Node()
            node = node.variable
    return node


def _words(gate: ServiceGate) -> frozenset[str]:
    segments = {one.literal for rule in gate.paths for one in parse_path(rule.path) if one.literal is not None}
    return frozenset({"", *segments, *gate.ignored_query, *(name for rule in gate.paths for name in rule.query)})


def _compiled(rule: PathRule, tenant: str | None) -> _Route:
    places: dict[str, int | str] = {
        segment.variable: at for at, segment in enumerate(parse_path(rule.path), 1) if segment.variable
    }
    literals: list[tuple[str, str]] = []
    for name, template in rule.query.items():
        parts = parse_value(template)
        if parts.variables:
            places[parts.variables[0]] = name
        else:
            literals.append((name, template))
    resource, action = parse_resource(rule.resource), parse_value(rule.action)
    names = list(dict.fromkeys((*resource.variables, *action.variables)))
    place = places[tenant] if tenant is not None else 0
    assert isinstance(place, int)  # noqa: S101 - the catalogue was checked: the tenant is a segment
    return _Route(
        path=f"{rule.path}?{'&'.join(sorted(rule.query))}" if rule.query else rule.path,
        sources=tuple(places[name] for name in names),
        literals=tuple(literals),
        resource=_format(resource, names),
        action=names.index(action.variables[0]) if action.variables else rule.action,
        tenant=place,
    )


def _format(template: TextTemplate, names: list[str]) -> str:
    numbered = [f"{{{names.index(name)}}}" for name in template.variables]
    return "".join(text + place for text, place in zip(template.texts, [*numbered, ""], strict=True))


def _tenant_reader(source: TenantSource) -> TenantReader:
    if source.fixed is not None:
        fixed = source.fixed
        return lambda _call, _segments, _route: fixed
    if source.path is not None:
        return lambda _call, segments, route: _slug(segments[route.tenant], "the tenant's segment")
    if source.host is not None:
        rest = parse_host(source.host)
        return lambda call, _segments, _route: _of_host(call.host, rest)
    name = str(source.header).lower()
    return lambda call, _segments, _route: _of_header(call.headers, name)


def _of_host(host: str, rest: str) -> str:
    if host.endswith(rest):
        return _slug(host[: -len(rest)], "the first label of the host")
    if host != host.lower():
        raise MappingRefused("malformed", "write the host in small letters")
    if host.endswith(".") or ".:" in host:
        raise MappingRefused("malformed", "leave out the dot at the end of the host")
    if PORT.search(host) and ":" not in rest:
        raise MappingRefused("malformed", "leave out the port of the host, or add it to the catalogue's template")
    raise MappingRefused("unmapped", f"the host is not of the form {TENANT}{rest}")


def _of_header(headers: SentHeaders, name: str) -> str:
    value = headers.once(name.encode())
    if value is None:
        raise MappingRefused("malformed", f"the gateway must send the header {name} exactly once")
    return _slug(value.decode("latin-1"), f"the header {name}")


def _slug(value: str, place: str) -> str:
    if SLUG.fullmatch(value) is None:
        raise MappingRefused("malformed", f"{place} is no tenant's slug: small letters, digits and - only")
    return value


def _escapes(marks: str) -> str:
    codes = "|".join(sorted(f"{ord(mark):02X}" for mark in marks))
    return rf"%(?:{codes}|[89A-F][0-9A-F])"


@cache
def target_pattern(escaped: str) -> re.Pattern[str]:
    """Return the pattern of accepted targets, for clients that percent-encode the characters in `escaped`."""
    in_path = "".join(mark for mark in PATH_MARKS if mark not in escaped)
    in_query = "".join(mark for mark in QUERY_MARKS if mark not in escaped)
    segment = rf"(?:[{LETTERS}{re.escape(in_path)}]|{_escapes(ENCODED + escaped)})++(?<!\.)"
    value = rf"(?:[{LETTERS}{re.escape(in_query)}]|{_escapes(ENCODED + escaped + '&+=')})++"
    pair = rf"[{LETTERS}]++={value}"
    return re.compile(rf"/(?:{segment}(?:/{segment})*+/?)?(?:\?{pair}(?:&{pair})*+)?")


def explain(target: str, escaped: str) -> str:
    path, asks, query = target.partition("?")
    return (
        _of_the_whole(target)
        or _of_escapes(target, escaped)
        or _of_the_path(path, escaped)
        or (_of_the_query(query, escaped) if asks else "")
        or "write the target as a path and, after ?, parameters as name=value"
    )


def _of_the_whole(target: str) -> str:
    if len(target) > MOST_CHARACTERS:
        return f"use at most {MOST_CHARACTERS:,} characters"
    if not target.startswith("/"):
        return "send the path alone: it begins with /, without a scheme or a host"
    for mark in target:
        if not "!" <= mark <= "~":
            return f"percent-encode U+{ord(mark):04X} as UTF-8" if mark > "\x7f" else f"leave out U+{ord(mark):04X}"
        if mark in FORBIDDEN:
            return FORBIDDEN[mark]
    return ""


def _of_escapes(target: str, escaped: str) -> str:
    in_query = target.find("?")
    for found in ESCAPE.finditer(target):
        escape, code = found[0].upper(), found[1]
        if not HEX.fullmatch(code):
            return "write two hexadecimal digits after %"
        if escape in NEVER:
            return f"leave out {escape}, an encoded {NEVER[escape]}"
        value = int(code, 16)
        if value < 0x20 or value == 0x7F:  # noqa: PLR2004 - the control characters of ASCII
            return f"leave out {escape}, a control character"
        if found[0] != escape:
            return f"write {escape} in capitals"
        if value < 0x80 and not _is_encoded(chr(value), escaped, is_in_query=-1 < in_query < found.start()):  # noqa: PLR2004 - ASCII
            hint = "; the catalogue's `escaped` can ask for it instead" if chr(value) in PATH_MARKS else ""
            return f"write {chr(value)} instead of {escape}{hint}"
    return ""


def _is_encoded(mark: str, escaped: str, *, is_in_query: bool) -> bool:
    return mark in ENCODED or mark in escaped or (is_in_query and mark in "&+=")


def _of_the_path(path: str, escaped: str) -> str:
    if "//" in path:
        return "write one / between segments"
    for segment in path.split("/"):
        if segment in {".", ".."}:
            return "leave out segments that are . or .."
        if segment.endswith("."):
            return "let no segment end with a dot"
    return _of_marks(path, PATH_MARKS + "/%", escaped)


def _of_the_query(query: str, escaped: str) -> str:
    for pair in query.split("&"):
        name, equals, value = pair.partition("=")
        if not (equals and name and value):
            return "write each parameter as name=value, with neither of them empty"
        if not NAME.fullmatch(name):
            return "write the names of parameters with letters, digits and . _ ~ - only"
        if found := _of_marks(value, QUERY_MARKS + "%", escaped):
            return found
    return ""


def _of_marks(text: str, taken: str, escaped: str) -> str:
    for mark in text:
        if mark in escaped or not (mark in taken or mark.isalnum() or mark in "._~-"):
            if mark in "/?":
                return f"leave {mark} out of parameters"
            code = f"%{ord(mark):02X}"
            return f"write {code} instead of {mark}" + (
                "; the catalogue lists it under `escaped`" * (mark in escaped)
            )
    return ""
