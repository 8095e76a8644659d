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
from lockbox.notices.letters import SUBJECTS
from lockbox.notices.memos import TITLES
from lockbox.notices.senders.smtp import compose

ALL = list(specimens())
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
OURS = re.compile(r"https://lockbox\.vendor\.example/(?:account|sign-in|(?:requests|invitations)/[0-9a-f-]{36})")
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


class Markup(HTMLParser):
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
def raw(one: Specimen) -> bytes:
    """Return the mail as it is sent."""
    return compose(one.mail, SENDER).as_bytes()


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_the_page_of_a_mail_holds_nothing_but_text_and_links_of_ours(one: Specimen) -> None:
    markup = Markup(one.mail.html)

    assert markup.tags <= TAGS
    assert markup.attributes <= ATTRIBUTES
    assert markup.open == []
    assert [link for link in markup.links if not OURS.fullmatch(link)] == []
    assert not re.search(r"url\(|@import|expression\(", re.sub(r"&\w+;|&#\d+;", "", one.mail.html))
    if one.name.endswith("-no-link"):
        assert markup.links == []
        assert "https://lockbox" not in one.mail.text


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_a_mail_keeps_its_form_whatever_people_wrote(one: Specimen) -> None:
    message = email.message_from_bytes(raw(one), policy=default)

    assert sorted(message.keys()) == HEADERS
    assert not [value for value in message.values() if "\n" in value or "\r" in value]
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    assert [address.addr_spec for address in message["To"].addresses] == ["ann@contoso.example"]
    assert len(one.mail.subject) <= 200
    assert len(one.mail.to_name) <= 100
    assert len(raw(one)) <= LARGEST
    assert max(map(len, raw(one).split(b"\r\n"))) <= 998


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_nothing_that_turns_text_around_or_commands_a_terminal_is_left(one: Specimen) -> None:
    for said in (one.mail.subject, one.mail.to_name, one.mail.text, one.mail.html):
        assert not UNTURNED.search(said)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_every_mail_says_from_where_those_of_ours_come(one: Specimen) -> None:
    said = " ".join(one.mail.text.split())

    assert "sender ends in @vendor.example and its Message-ID in @lockbox.vendor.example" in said
    assert one.mail.message_id.endswith("@lockbox.vendor.example>")


def test_every_template_is_there_by_every_hand_and_with_and_without_a_link() -> None:
    names = {one.name for one in ALL}

    assert len(names) == len(ALL)
    for hand in HANDS:
        for state in SUBJECTS.keys() - {"receipt"}:
            assert {f"{state}-{hand.name}", f"{state}-{hand.name}-no-link"} <= names
        assert {f"{memo}-{hand.name}" for memo in TITLES} <= names
        assert {name for name in names if name.startswith("receipt-") and f"-{hand.name}" in name}


def test_the_gallery_is_written_as_pages_texts_and_mails_with_an_index(tmp_path: Path) -> None:
    count = gallery.write(tmp_path / "deep" / "mails")
    again = gallery.write(tmp_path / "deep" / "mails")

    written = {path.name for path in (tmp_path / "deep" / "mails").iterdir()}
    assert count == again == len(ALL)
    assert written == {"index.html"} | {f"{one.name}.{end}" for one in ALL for end in ("html", "txt", "eml")}
    index = (tmp_path / "deep" / "mails" / "index.html").read_text()
    assert set(re.findall(r'href="([^"]+)"', index)) == written - {"index.html"}
    assert "<script" not in index
