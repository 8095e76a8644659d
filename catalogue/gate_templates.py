"""Templates of a gate: paths, hosts and resources with variables in braces. Pure."""

import re
from dataclasses import dataclass
from functools import lru_cache

VARIABLE = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}")
BRACES = re.compile(r"\{[^{}]*\}|[{}]")
LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()+,:=@-]+")
KIND = re.compile(r"[a-z][a-z0-9-]{0,31}:")
PLAIN = re.compile(r"[!-)+-~]*")
"""The characters of a resource's template outside its variables: visible ASCII except `*`."""
LABELS = re.compile(r"(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?){2,}(?::[1-9][0-9]{0,4})?")
TENANT = "{tenant}"
ANY = "{}"


@dataclass(frozen=True)
class TemplateSegment:
    """Without a literal and a variable, the segment matches any text."""

    literal: str | None = None
    variable: str | None = None

    def meets(self, other: "TemplateSegment") -> bool:
        """Return whether some text matches both segments. The segment after a final slash is empty."""
        if self.literal is None or other.literal is None:
            return self.literal != "" and other.literal != ""
        return self.literal == other.literal


@dataclass(frozen=True)
class TextTemplate:
    texts: tuple[str, ...]
    variables: tuple[str, ...]


@lru_cache(maxsize=1024)
def parse_path(template: str) -> tuple[TemplateSegment, ...]:
    """`template` is a path such as `/mailboxes/{address}/messages/{}`."""
    if not template.startswith("/"):
        raise ValueError("begin the path with /")
    parts = template[1:].split("/")
    if "" in parts[:-1]:
        raise ValueError("write one / between segments")
    segments = tuple(map(_segment, parts))
    names = [segment.variable for segment in segments if segment.variable]
    if len(set(names)) < len(names):
        raise ValueError("use each variable once in the path; write {} for a segment that does not matter")
    return segments


def _segment(part: str) -> TemplateSegment:
    if part == ANY:
        return TemplateSegment()
    if found := VARIABLE.fullmatch(part):
        return TemplateSegment(variable=found[1])
    if "{" in part or "}" in part:
        raise ValueError(
            "let a variable be a whole segment, such as /{name}/; a name has small letters, digits and _"
        )
    if part and not LITERAL.fullmatch(part):
        raise ValueError("use letters, digits and . _ ~ ! $ & ' ( ) + , : = @ - only in the text of a path")
    if part.endswith("."):
        raise ValueError("let no segment end with a dot")
    return TemplateSegment(literal=part)


def parse_resource(template: str) -> TextTemplate:
    """`template` is a resource such as `mailbox:{address}`."""
    if not KIND.match(template):
        raise ValueError("begin with a kind and a colon, such as mailbox:{address}")
    parts = _texts(template)
    if any("/" not in between for between in parts.texts[1:-1]):
        raise ValueError("write a / between two variables: no value has one, so that they can be told apart")
    if template == KIND.match(template)[0]:  # type: ignore[index] # it has matched above
        raise ValueError("write an id after the colon, such as mailbox:{address}")
    return parts


def parse_value(template: str) -> TextTemplate:
    """`template` is either one variable or a plain text."""
    parts = _texts(template)
    if parts.variables and any(parts.texts):
        raise ValueError("write either a literal text or one variable such as {name}")
    if len(parts.variables) > 1:
        raise ValueError("write one variable")
    return parts


def parse_host(template: str) -> str:
    """Return the text after the tenant, such as `.mail.example` of `{tenant}.mail.example`."""
    rest = template.removeprefix(TENANT)
    if rest == template or not LABELS.fullmatch(rest):
        raise ValueError("write {tenant} as the first label, then at least two more, such as {tenant}.mail.example")
    return rest


def _texts(template: str) -> TextTemplate:
    for found in BRACES.finditer(template):
        if not VARIABLE.fullmatch(found[0]):
            raise ValueError("write variables as {name}, with small letters, digits and _")
    texts = VARIABLE.split(template)
    if not all(PLAIN.fullmatch(text) for text in texts[::2]):
        raise ValueError("use visible ASCII characters only, and no *")
    return TextTemplate(tuple(texts[::2]), tuple(texts[1::2]))
