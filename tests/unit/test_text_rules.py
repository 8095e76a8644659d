"""Text that an approver reads: nothing invisible gets in, names hold no links, ids have one spelling."""

import re
from datetime import UTC, datetime

import pytest

from lockbox import text_rules
from lockbox.identity.look_alikes import is_alike
from lockbox.notifications import request_wording
from lockbox.text_rules import one_line, prose
from tests.each import each

HIDDEN = [
    "\u200b", "\u200d", "\u200e", "\u202e", "\u2066", "\u2060", "\ufeff", "\u00ad", "\u034f", "\u061c", "\u115f",
    "\u1160", "\u3164", "\uffa0", "\u2800", "\u180e", "\ufe0f", "\u17b4", "\ufff9", "\u2028", "\ue000",
    "\U000e0041", "\U000e0100", "\U0001d173", "\x00", "\x1b", "\x7f", "\x85", "\ud800",
]  # fmt: skip


@each("mark", HIDDEN)
@each("check", [text_rules.check_text, text_rules.check_line, text_rules.check_name, text_rules.check_resource])
def test_an_invisible_character_is_refused_with_its_unicode_number(check: text_rules.Check, mark: str) -> None:
    with pytest.raises(ValueError, match=f"U\\+{ord(mark):04X}"):
        check(f"mailbox:an{mark}na")


@each("mark", [mark for mark in HIDDEN if mark not in {"\ue000", "\ud800"}])
def test_openapi_patterns_reject_every_character_the_text_rules_refuse(mark: str) -> None:
    for pattern in (
        text_rules.TEXT_PATTERN,
        text_rules.LINE_PATTERN,
        text_rules.RESOURCE_PATTERN,
        text_rules.WILDCARD_PATTERN,
    ):
        assert not re.search(pattern, f"mailbox:an{mark}na")


@each(
    "text",
    ["Grüße, 山田 太郎", "Anna O\u2019Neill", "Ελλάδα", "राम", "שלום", "👍 done", "two\nlines\tand a tab", "a b"],
)
def test_text_of_any_language_is_accepted(text: str) -> None:
    assert text_rules.check_text(f" {text} ") == text
    assert re.search(text_rules.TEXT_PATTERN, f" {text} ")


@pytest.mark.parametrize("blank", ["", " ", "\n", "\t ", "\u00a0", "\u3000"])
def test_blank_text_is_refused(blank: str) -> None:
    for check, pattern in (
        (text_rules.check_text, text_rules.TEXT_PATTERN),
        (text_rules.check_line, text_rules.LINE_PATTERN),
    ):
        with pytest.raises(ValueError, match=r"say something|on one line"):
            check(blank)
        assert not re.search(pattern, blank)


@pytest.mark.parametrize("text", ["two\nlines", "a\ttab", "no\u00a0break"])
def test_a_one_line_text_has_no_white_space_but_spaces(text: str) -> None:
    with pytest.raises(ValueError, match=r"line|plain space"):
        text_rules.check_line(text)

    assert not re.search(text_rules.LINE_PATTERN, text)


@each(
    "name",
    [
        "Call https://evil.example", "www.evil.example", "evil.example", "ann@contoso.example",
        "Anna (sso.contoso.com)", "evil。example", "\uff45vil\uff0ecom", "пример.рф", "ftp://x", "WWW.X",
    ],
)  # fmt: skip
def test_a_persons_name_with_a_web_or_mail_address_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="leave out web and mail addresses"):
        text_rules.check_name(name)


@pytest.mark.parametrize(
    "name", ["J.R. Tolkien", "Dr. Smith", "A/B GmbH & Co. KG", "Contoso, Inc.", "O'Neill", "3.5 Ltd"]
)
def test_a_persons_name_with_dots_is_accepted(name: str) -> None:
    assert text_rules.check_name(name) == name


def test_a_resource_id_that_is_not_in_composed_unicode_form_is_refused() -> None:
    assert text_rules.check_resource("mailbox:ren\u00e9@contoso.example")

    with pytest.raises(ValueError, match=r"composed form \(NFC\)"):
        text_rules.check_resource("mailbox:rene\u0301@contoso.example")


@each(
    ("resource", "found"),
    [
        ("mailbox:anna@contoso.example", []),
        ("mailbox:\u0430nna@contoso.example", ["Cyrillic", "Latin"]),
        ("site:\u03bfmega", ["Greek", "Latin"]),
        ("site:\u0430\u043d\u043d\u0430", []),
        ("site:山田たろうのメール-box", []),
        ("site:김-金-box", []),
        ("site:\uff46\uff55\uff4c\uff4c-width", []),
        ("site:123-456", []),
        ("site:ren\u00e9", []),
    ],
)
def test_a_resource_id_of_mixed_alphabets_is_recognised(resource: str, found: list[str]) -> None:
    assert text_rules.alphabets(resource) == found
    assert text_rules.mixed([resource, "a:b"]) == ([resource] if found else [])


@pytest.mark.parametrize("mark", ["\u200b", "\u202e", "\u3164", "\U000e0041"])
def test_a_mail_writes_out_invisible_characters(mark: str) -> None:
    shown = f"an[U+{ord(mark):04X}]na"

    assert one_line(f"an{mark}na") == shown
    assert prose(f"an{mark}na\nyes") == f"{shown}\nyes"


AT = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def test_the_description_of_a_sign_in_distinguishes_demo_tokens_from_api_tokens() -> None:
    assert request_wording.signed_in("token", "sample", None, AT) == "a demo token, without a sign-in"
    assert request_wording.signed_in("token", "token", None, AT) == "an API token, without a sign-in"
    assert request_wording.signed_in("session", "sample", AT, AT).startswith("as a demo user")


MAX = ("Max Mann", ["max@vendor.example"])


@pytest.mark.parametrize(
    "other",
    [
        ("max  mann", ["mm@vendor.example"]),
        ("M. Mann", ["m@vendor.example", "MAX+eng@vendor.example"]),
        ("Max Mann", ["max@vendor.example"]),
    ],
)
def test_names_and_mailboxes_that_differ_only_in_case_or_spaces_or_tags_count_as_look_alikes(
    other: tuple[str, list[str]],
) -> None:
    assert is_alike(MAX, other)


@pytest.mark.parametrize("other", [("Maxine Mann", ["maxine@vendor.example"]), ("M. Mann", ["max@other.example"])])
def test_different_names_and_mailboxes_are_no_look_alikes(other: tuple[str, list[str]]) -> None:
    assert not is_alike(MAX, other)
