"""The gallery: every mail is made, by every hand, and none of them breaks its form."""

import email
import re
from email.policy import default
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cli.mails import gallery
from cli.mails.specimens import HANDS, SENDER, Specimen, specimens
from lockbox.notifications.account_mail import TITLES
from lockbox.notifications.request_mail import SUBJECTS
from lockbox.notifications.senders.smtp import compose

HAND_NAMES = [hand.name for hand in HANDS]
LARGEST = 64 * 1024
# What a mail may be made of: anything else could run, load or send.
TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "body",
        "table",
        "tr",
        "td",
        "th",
        "h1",
        "p",
        "b",
        "br",
        "ul",
        "li",
        "span",
        "bdi",
    ),
    *("blockquote", "a"),
}
ATTRIBUTES = {"lang", "charset", "name", "content", "style", "role", "align", "width", "scope", "dir", "href"}
OURS = re.compile(
    r"https://lockbox\.vendor\.example/(?:account|operations|sign-in|proposals|(?:requests|invitations)/[0-9a-f-]{36})"
)
UNTURNED = re.compile("[\u202a-\u202e\u2066-\u2069\u2028\u2029\x00-\x08\x0b-\x1f\x7f]")
HEADERS = [
    "Auto-Submitted",
    "Content-Type",
    "Date",
    "From",
    "In-Reply-To",
    "MIME-Version",
    "Message-ID",
    "References",
    "Subject",
    "To",
]


class MarkupParser(HTMLParser):
    """What a mail program makes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what is there."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Check that what is closed was opened last."""
        assert self.open.pop() == tag


@cache
def every_mail() -> list[Specimen]:
    """Return all of them; not when this file is imported, which every process of a run of the tests does."""
    return list(specimens())


@cache
def raw(one: Specimen) -> bytes:
    """Return the mail as it is sent."""
    return compose(one.mail, SENDER).content


def by(hand: str) -> list[Specimen]:
    """Return the mails that repeat what one hand has written."""
    return [one for one in every_mail() if one.name.removesuffix("-no-link").endswith(f"-{hand}")]


@pytest.mark.parametrize("hand", HAND_NAMES)
def test_the_page_of_a_mail_holds_nothing_but_text_and_links_of_ours(hand: str) -> None:
    for one in by(hand):
        markup = MarkupParser(one.mail.html)

        assert markup.tags <= TAGS, one.name
        assert markup.attributes <= ATTRIBUTES, one.name
        assert markup.open == [], one.name
        assert [link for link in markup.links if not OURS.fullmatch(link)] == [], one.name
        assert not re.search(r"url\(|@import|expression\(", re.sub(r"&\w+;|&#\d+;", "", one.mail.html)), one.name
        if one.name.endswith("-no-link"):
            assert markup.links == [], one.name
            assert "https://lockbox" not in one.mail.text, one.name


@pytest.mark.parametrize("hand", HAND_NAMES)
def test_a_mail_keeps_its_form_whatever_people_wrote(hand: str) -> None:
    for one in by(hand):
        message = email.message_from_bytes(raw(one), policy=default)

        assert sorted(message.keys()) == HEADERS, one.name
        assert not [value for value in message.values() if "\n" in value or "\r" in value], one.name
        assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"], one.name
        assert [address.addr_spec for address in message["To"].addresses] == ["ann@contoso.example"], one.name
        assert len(one.mail.subject) <= 200, one.name
        assert len(one.mail.to_name) <= 100, one.name
        assert len(raw(one)) <= LARGEST, one.name
        assert max(map(len, raw(one).split(b"\r\n"))) <= 998, one.name


@pytest.mark.parametrize("hand", HAND_NAMES)
def test_nothing_that_turns_text_around_or_commands_a_terminal_is_left(hand: str) -> None:
    for one in by(hand):
        for said in (one.mail.subject, one.mail.to_name, one.mail.text, one.mail.html):
            assert not UNTURNED.search(said), one.name


@pytest.mark.parametrize("hand", HAND_NAMES)
def test_every_mail_says_from_where_those_of_ours_come(hand: str) -> None:
    for one in by(hand):
        said = " ".join(one.mail.text.split())

        assert "sender ends in @vendor.example and its Message-ID in @lockbox.vendor.example" in said, one.name
        assert one.mail.message_id.endswith("@lockbox.vendor.example>"), one.name


def test_every_template_is_there_by_every_hand_and_with_and_without_a_link() -> None:
    names = {one.name for one in every_mail()}
    by_hand = [one.name for hand in HAND_NAMES for one in by(hand)]

    assert sorted(by_hand) == sorted(names)
    assert len(names) == len(every_mail())
    for hand in HANDS:
        for state in SUBJECTS.keys() - {"receipt"}:
            assert {f"{state}-{hand.name}", f"{state}-{hand.name}-no-link"} <= names
        assert {f"{template}-{hand.name}" for template in TITLES} <= names
        assert {name for name in names if name.startswith("receipt-") and f"-{hand.name}" in name}


def test_the_gallery_is_written_as_pages_texts_and_mails_with_an_index(tmp_path: Path) -> None:
    count = gallery.write(tmp_path / "deep" / "mails")

    written = {path.name for path in (tmp_path / "deep" / "mails").iterdir()}
    assert count == len(every_mail())
    assert written == {"index.html"} | {f"{one.name}.{end}" for one in every_mail() for end in ("html", "txt", "eml")}
    index = (tmp_path / "deep" / "mails" / "index.html").read_text()
    assert set(re.findall(r'href="([^"]+)"', index)) == written - {"index.html"}
    assert "<script" not in index
