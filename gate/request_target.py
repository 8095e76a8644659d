"""Take a request's target in one spelling only, and say what is wrong with any other; pure."""

import re
from functools import cache
from urllib.parse import unquote_to_bytes

MOST_CHARACTERS = 2048
LETTERS = r"A-Za-z0-9._~\-"
PATH_MARKS = "!$&'()+,:=@"
QUERY_MARKS = "!$'(),:@"
ENCODED = ' "<>[]^`{|}'
"""The ASCII characters that are taken percent-encoded only: nothing may have them as they are (RFC 3986)."""
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


class MalformedTarget(ValueError):  # noqa: N818 - it names what was found
    """The target is not in the one spelling that is taken; the message says what is wrong with it."""


def _escapes(marks: str) -> str:
    """Return a pattern of the escapes that are taken: of these characters, and of what is not ASCII."""
    codes = "|".join(sorted(f"{ord(mark):02X}" for mark in marks))
    return rf"%(?:{codes}|[89A-F][0-9A-F])"


@cache
def target_pattern(escaped: str) -> re.Pattern[str]:
    """Return the pattern of a good target, for clients that percent-encode these characters of `PATH_MARKS`."""
    in_path = "".join(mark for mark in PATH_MARKS if mark not in escaped)
    in_query = "".join(mark for mark in QUERY_MARKS if mark not in escaped)
    segment = rf"(?:[{LETTERS}{re.escape(in_path)}]|{_escapes(ENCODED + escaped)})++(?<!\.)"
    value = rf"(?:[{LETTERS}{re.escape(in_query)}]|{_escapes(ENCODED + escaped + '&+=')})++"
    pair = rf"[{LETTERS}]++={value}"
    return re.compile(rf"/(?:{segment}(?:/{segment})*+/?)?(?:\?{pair}(?:&{pair})*+)?")


def check_utf8(target: str) -> None:
    """Check what is percent-encoded in a good target.

    Raises:
        MalformedTarget: it is no UTF-8, or has control characters.
    """
    try:
        decoded = unquote_to_bytes(target).decode()
    except UnicodeDecodeError:
        raise MalformedTarget("percent-encode UTF-8: these bytes are something else") from None
    if found := C1.search(decoded):
        raise MalformedTarget(f"leave out the control character U+{ord(found[0]):04X}")


def explain(target: str, escaped: str) -> str:
    """Return what is wrong with a target that `target_pattern` does not match, or that is too long."""
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
