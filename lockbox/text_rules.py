"""Rules for text that people read before they decide: no invisible characters, one spelling, no links.

Each rule is also a JSON Schema pattern, for the OpenAPI document. A check returns the text, stripped if the rule
allows surrounding white space, or raises ValueError.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function
from typing_extensions import TypeAliasType

FORM = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d+)?(?:[Zz]|[+-]\d{2}:\d{2})")
EXAMPLE = "2026-11-24T09:00:00Z"
Check = Callable[[str], str]
Ranges = tuple[tuple[int, int], ...]
CONTROLS: Ranges = ((0x00, 0x08), (0x0B, 0x0C), (0x0E, 0x1F), (0x7F, 0x9F))
BREAKS: Ranges = ((0x09, 0x0A), (0x0D, 0x0D))
SPACES: Ranges = (
    (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000),
)  # fmt: skip
SURROGATES: Ranges = ((0xD800, 0xDFFF),)
INVISIBLE: Ranges = (
    # Unicode's Default_Ignorable_Code_Point: zero-width, direction and variation marks, fillers, tags.
    (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F),
    (0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
    # Further invisible characters: line and paragraph separators, an empty Braille cell, other fillers.
    (0x2028, 0x2029), (0x2800, 0x2800), (0x16FE4, 0x16FE4), (0x1D159, 0x1D159),
    # The other format characters of Unicode's category Cf.
    (0x600, 0x605), (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2), (0xFFF9, 0xFFFB),
    (0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x13430, 0x1345F),
)  # fmt: skip
PRIVATE: Ranges = ((0xE000, 0xF8FF), (0xFDD0, 0xFDEF), (0xFFFE, 0xFFFF), (0xF0000, 0x10FFFF))
"""Private-use code points, which each font shows differently, or not at all. The patterns leave them out."""
UUID_FORM = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
RESOURCE = re.compile(r"[a-z][a-z0-9-]{0,31}:\S{1,220}")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
DOTS = str.maketrans("\u3002\u2024\ufe52", "...")
LINK = re.compile(r"@|://|\bwww\.|[^\W_][\w-]*\.[^\W\d_]{2,}", re.IGNORECASE)
LONGEST_NAME = 100
TOGETHER = (
    {"LATIN", "CJK", "HIRAGANA", "KATAKANA"},
    {"LATIN", "CJK", "BOPOMOFO"},
    {"LATIN", "CJK", "HANGUL"},
)
"""Scripts that one word is commonly written in (Unicode Technical Standard 39, highly restrictive)."""


def _written_out(value: object) -> object:
    """Refuse numbers, which pydantic would read as seconds since 1970, and dates without a time."""
    if isinstance(value, datetime) or (isinstance(value, str) and FORM.fullmatch(value)):
        return value
    raise ValueError(f"write a moment with its time zone, such as {EXAMPLE}")


def _to_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("choose a moment that a calendar holds") from None


Instant = Annotated[
    AwareDatetime,
    BeforeValidator(_written_out, json_schema_input_type=AwareDatetime),
    AfterValidator(_to_utc),
    Field(examples=[EXAMPLE]),
]
"""A timestamp in a body or a query."""


def _class(*ranges: Ranges) -> str:
    return "".join(
        _mark(first) if first == last else f"{_mark(first)}-{_mark(last)}" for part in ranges for first, last in part
    )


def _mark(code: int) -> str:
    # Beyond the first plane the dialects' escapes differ, so the character itself is used.
    return f"\\u{code:04x}" if code <= 0xFFFF else chr(code)  # noqa: PLR2004 - the end of the first plane


HIDDEN = _class(CONTROLS, INVISIBLE)


TEXT_PATTERN = f"^[ {_class(BREAKS, SPACES)}]*[^ {_class(BREAKS, SPACES)}{HIDDEN}][^{HIDDEN}]*$"


LINE_PATTERN = f"^ *[^ {_class(BREAKS, SPACES)}{HIDDEN}][^{_class(BREAKS, SPACES)}{HIDDEN}]*$"


NOT_IN_IDS = f" {_class(BREAKS, SPACES)}{HIDDEN}"


RESOURCE_PATTERN = f"^[a-z][a-z0-9-]{{0,31}}:[^*{NOT_IN_IDS}]{{1,220}}$"


DOT_SEGMENT = r"/([^?#]*/)?(\.|%2[Ee]){1,2}([/?#]|$)"
"""A path segment of dots: it leads a browser to another path than the start of the address shows."""
HTTPS_PATTERN = rf"^https://[A-Za-z0-9.-]+(:[0-9]{{1,5}})?(?!{DOT_SEGMENT})/[A-Za-z0-9._~:/?#@!$&'()*+,;=%\[\]-]*$"


WILDCARD_PATTERN = f"^[a-z][a-z0-9-]{{0,31}}:[^{NOT_IN_IDS}]+$"


NARROW_PATTERN = f"^[a-z][a-z0-9-]{{0,31}}:\\**[^*{NOT_IN_IDS}][^{NOT_IN_IDS}]*$"
"""A wildcard pattern that has more than stars."""


HTTPS = re.compile(HTTPS_PATTERN)


UNFIT = re.compile(f"[{_class(CONTROLS, SURROGATES, PRIVATE, INVISIBLE)}]")


UNFIT_IN_A_LINE = re.compile(f"[{_class(CONTROLS, BREAKS, SPACES, SURROGATES, PRIVATE, INVISIBLE)}]")


INKLESS = re.compile(f"[{_class(INVISIBLE, PRIVATE)}]")


def check_text(value: str) -> str:
    """Refuse blank text and invisible characters."""
    if found := UNFIT.search(value):
        raise ValueError(f"leave out {_called(found[0])}: readers would not see it")
    if not value.strip():
        raise ValueError("say something")
    return value.strip()


def check_line(value: str) -> str:
    """Refuse blank text, several lines, white space other than spaces, and invisible characters."""
    if any(mark in value for mark in "\n\r\t"):
        raise ValueError("write it on one line")
    check_text(value)
    if found := UNFIT_IN_A_LINE.search(value):
        raise ValueError(f"write a plain space instead of {_called(found[0])}")
    return value.strip()


def check_name(value: str) -> str:
    """Refuse text that mail programs would show as a link: mail subjects contain names."""
    line = check_line(value)
    if LINK.search(unicodedata.normalize("NFKC", line).translate(DOTS)):
        raise ValueError("leave out web and mail addresses: a name is shown in the subjects of mails")
    return line


def check_resource(value: str) -> str:
    """Refuse wildcards, invisible characters, and text that is not kind:id or not in Unicode's form NFC."""
    if "*" in value:
        raise ValueError("name each resource; wildcards are not allowed")
    _check_visible(value)
    if not RESOURCE.fullmatch(value):
        raise ValueError("write a resource as kind:id, such as mailbox:anna@contoso.example")
    return _check_spelling(value)


def check_https(value: str) -> str:
    """Refuse URLs that are not https, name a user, or have a dot segment in the path or unescaped characters."""
    if not HTTPS.fullmatch(value):
        raise ValueError("write a whole https address without dot segments, such as https://desk.example/cases/4711")
    return value


def check_resource_pattern(value: str) -> str:
    """Refuse a pattern with characters or a spelling that no id may have; only `*` is allowed in addition."""
    _check_visible(value)
    return _check_spelling(value)


def alphabets(value: str) -> list[str]:
    """Return the alphabets of an id's letters if they are not commonly combined, else an empty list.

    A Cyrillic letter among Latin letters can look like a Latin letter and name another resource. The kind before the
    colon is not checked.
    """
    found = {_script(mark) for mark in unicodedata.normalize("NFKC", value.partition(":")[2]) if mark.isalpha()}
    found.discard("")
    if len(found) < 2 or any(found <= usual for usual in TOGETHER):  # noqa: PLR2004 - one is not mixed
        return []
    return sorted(script.capitalize() for script in found)


def mixed(resources: Iterable[str]) -> list[str]:
    return [resource for resource in resources if alphabets(resource)]


def warning(resource: str) -> str:
    found = alphabets(resource)
    return f"mixed alphabets: {' and '.join(found)}; check each letter" if found else ""


def spreadsheet_cell(text: str) -> str:
    """Return a text that a spreadsheet cannot run as a formula."""
    return f"'{text}" if text.startswith(FORMULA) else text


def flagged(resource: str) -> str:
    found = warning(resource)
    return f"{resource} ({found})" if found else resource


def visible(value: str) -> str:
    """Return text with each invisible character written out, such as `[U+200B]`; line breaks stay."""
    return INKLESS.sub(lambda found: f"[U+{ord(found[0]):04X}]", value)


def one_line(text: str, longest: int = LONGEST_NAME) -> str:
    """Return a name for a header: on one line, of limited length, with invisible characters written out."""
    kept = (" " if unicodedata.category(mark).startswith(("C", "Z")) else mark for mark in visible(text))
    line = " ".join("".join(kept).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def prose(text: str) -> str:
    """Return a text without control characters, and with invisible characters written out; line breaks stay."""
    lines = visible(text).expandtabs(1).splitlines()
    return "\n".join(
        "".join(mark for mark in line if unicodedata.category(mark) not in {"Cc", "Cs"}) for line in lines
    )


def _check_visible(value: str) -> None:
    if found := UNFIT.search(value):
        raise ValueError(f"leave out {_called(found[0])}: readers would not see it")
    if UNFIT_IN_A_LINE.search(value):
        raise ValueError("write a resource without blanks, as kind:id, such as mailbox:anna@contoso.example")


def _check_spelling(value: str) -> str:
    if not unicodedata.is_normalized("NFC", value):
        raise ValueError("write it in Unicode's composed form (NFC): this spelling looks the same as another one")
    return value


def _called(mark: str) -> str:
    name = unicodedata.name(mark, "")
    return f"the character U+{ord(mark):04X}{f' ({name.lower()})' if name else ''}"


def _script(letter: str) -> str:
    first = unicodedata.name(letter, "").partition(" ")[0]
    return {"IDEOGRAPHIC": "CJK", "KATAKANA-HIRAGANA": "KATAKANA", "MODIFIER": ""}.get(first, first)


def _whole(value: object) -> object:
    # JSON has one kind of number, so 60.0 is a whole number.
    return int(value) if isinstance(value, float) and value.is_integer() else value


IS_WHOLE = BeforeValidator(_whole)


@dataclass(frozen=True)
class TextRule:
    """A rule that is checked after the length, and is part of the OpenAPI document."""

    check: Check
    pattern: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "pattern": self.pattern}


IS_TEXT = TextRule(check_text, TEXT_PATTERN)
IS_LINE = TextRule(check_line, LINE_PATTERN)
IS_NAME = TextRule(check_name, LINE_PATTERN)
IS_PAGE = TextRule(check_https, HTTPS_PATTERN)

COUNTRIES = frozenset(
    """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY
BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK
FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR
IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK
ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM
PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF
TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
""".split()  # noqa: SIM905 - a line of codes reads better than a line of quotes
)
"""The officially assigned codes. User-assigned codes, such as XK, stand for a country in some systems only."""
NOT_A_CODE = "write a country as the two capital letters of ISO 3166-1, such as DE"


def check_country(value: str) -> str:
    if value not in COUNTRIES:
        raise ValueError(NOT_A_CODE)
    return value


Country = TypeAliasType(
    "Country",
    Annotated[
        str,
        Field(min_length=2, max_length=2, json_schema_extra={"enum": sorted(COUNTRIES)}),
        AfterValidator(check_country),
    ],
)
"""A country's code; an alias with a name, so that schemas list the codes once."""
