"""The gallery: every mail with every style of user text, and none breaks its layout."""

import email
import re
from collections.abc import Sequence
from email.policy import default
from functools import cache
from html.parser import HTMLParser
from itertools import islice
from pathlib import Path

import pytest

from devstack.mails import gallery
from devstack.mails.specimens import SENDER, Specimen, specimens
from devstack.mails.writing_styles import STYLES
from lockbox.notifications import request_mail
from lockbox.notifications.mail_text import ACCOUNT_TITLES, REQUEST_SUBJECTS
from lockbox.notifications.senders.smtp import compose

STYLE_NAMES = [style.name for style in STYLES]
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
    *("blockquote", "a", "style"),
}
ATTRIBUTES = {"lang", "charset", "name", "content", "style", "role", "align", "width", "scope", "dir", "href"} | {
    "class"
}
OURS = re.compile(
    r"https://lockbox\.vendor\.example/"
    r"(?:account|operations|sign-in|proposals|audit-log/checkpoint|requests/[0-9a-f-]{36}|invitations/[0-9a-f-]{36}#[A-Z2-7]{32}"
    r"|tenants/[a-z0-9-]+/(?:pre-approvals|unapproved-access|members/[0-9a-f-]{36}))"
)
UNTURNED = re.compile("[\u202a-\u202e\u2066-\u2069\u2028\u2029\x00-\x08\x0b-\x1f\x7f]")
HEADERS = [
    "Auto-Submitted",
    "Content-Type",
    "Date",
    "From",
    "In-Reply-To",
    "List-Id",
    "MIME-Version",
    "Message-ID",
    "References",
    "Subject",
    "To",
    "X-Auto-Response-Suppress",
]


class MarkupParser(HTMLParser):
    """Reads a page as a mail program does."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name == "href"]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@cache
def every_mail() -> list[Specimen]:
    """Return all mails; made at import, they would take time in every process of a test run."""
    return list(specimens())


def gallery_mails() -> Sequence[Specimen]:
    return gallery.shown(every_mail())


@cache
def raw(one: Specimen) -> bytes:
    return compose(one.mail, SENDER).content


def by(style: str) -> list[Specimen]:
    """Return the mails with the user text of one style."""
    return [one for one in every_mail() if one.name.removesuffix("-no-link").endswith(f"-{style}")]


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_the_page_of_a_mail_contains_only_text_and_lockbox_links(style: str) -> None:
    for one in by(style):
        markup = MarkupParser(one.mail.html)

        assert markup.tags <= TAGS, one.name
        assert markup.attributes <= ATTRIBUTES, one.name
        assert markup.open == [], one.name
        assert [link for link in markup.links if not OURS.fullmatch(link)] == [], one.name
        assert not re.search(r"url\(|@import|expression\(", re.sub(r"&\w+;|&#\d+;", "", one.mail.html)), one.name
        if one.name.endswith("-no-link"):
            assert markup.links == [], one.name
            assert "https://lockbox" not in one.mail.text, one.name


def test_each_label_of_a_mail_is_translatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_mail, "label_text", str.upper)
    monkeypatch.setitem(request_mail.TEMPLATES.globals, "label_text", str.upper)
    # A macro keeps the function that it was imported with.
    monkeypatch.setattr(request_mail.TEMPLATES, "cache", {})

    with_labels = [one.mail for one in islice(specimens(), 100) if "<th" in one.mail.html]

    assert len(with_labels) > 50
    for mail in with_labels:
        labels = re.findall(r"<th[^>]*>([^<]*)</th>", mail.html)
        assert labels == [label.upper() for label in labels]
        assert all(f"\n{label} " in f"\n{mail.text}" for label in labels if "&" not in label)


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_a_mail_keeps_its_layout_whatever_people_wrote(style: str) -> None:
    for one in by(style):
        message = email.message_from_bytes(raw(one), policy=default)

        assert sorted(message.keys()) == HEADERS, one.name
        assert not [value for value in message.values() if "\n" in value or "\r" in value], one.name
        assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"], one.name
        assert [address.addr_spec for address in message["To"].addresses] == ["ann@contoso.example"], one.name
        assert len(one.mail.subject) <= 200, one.name
        assert len(one.mail.to_name) <= 100, one.name
        assert len(raw(one)) <= LARGEST, one.name
        assert max(map(len, raw(one).split(b"\r\n"))) <= 998, one.name


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_direction_marks_and_terminal_escapes_are_removed_from_mails(style: str) -> None:
    for one in by(style):
        for said in (one.mail.subject, one.mail.to_name, one.mail.text, one.mail.html):
            assert not UNTURNED.search(said), one.name


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_every_mail_says_how_to_recognise_a_mail_of_lockbox(style: str) -> None:
    for one in by(style):
        said = " ".join(one.mail.text.split())

        assert "sender ends in @vendor.example and its Message-ID in @lockbox.vendor.example" in said, one.name
        assert one.mail.message_id.endswith("@lockbox.vendor.example>"), one.name


def test_the_mail_gallery_has_every_template_for_each_kind_of_actor_with_and_without_a_link() -> None:
    names = {one.name for one in every_mail()}
    by_style = [one.name for style in STYLE_NAMES for one in by(style)]

    assert sorted(by_style) == sorted(names)
    assert len(names) == len(every_mail())
    for style in STYLES:
        for state in REQUEST_SUBJECTS.keys() - {"receipt"}:
            assert {f"{state}-{style.name}", f"{state}-{style.name}-no-link"} <= names
        assert {f"{template}-{style.name}" for template in ACCOUNT_TITLES} <= names
        assert {name for name in names if name.startswith("receipt-") and f"-{style.name}" in name}


def test_the_mail_gallery_consists_of_html_pages_and_texts_and_mail_files_and_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "deep" / "mails"
    # To make all of them takes seconds.
    monkeypatch.setattr(gallery, "specimens", every_mail)

    for every, shown in ((True, every_mail()), (False, gallery_mails())):
        count = gallery.write(folder, every=every)

        written = {path.name for path in folder.iterdir()}
        assert count == len(shown)
        assert written == {"index.html"} | {f"{one.name}.{end}" for one in shown for end in ("html", "txt", "eml")}
        index = (folder / "index.html").read_text()
        assert set(re.findall(r'href="([^"]+)"', index)) == written - {"index.html"}
        assert set(re.findall(r'src="([^"]+)"', index)) == {f"{mail.name}.html" for mail in gallery_mails()}
        assert "<script" not in index


def test_no_two_mails_of_the_gallery_are_equal() -> None:
    shown = gallery_mails()

    assert len({one.mail.text for one in shown}) == len({one.mail.html for one in shown}) == len(gallery.SHOWN)
    assert [one.name.replace("-plain", "", 1) for one in shown] == [*gallery.SHOWN]
    subjects = {one.name: one.mail.subject for one in shown}
    assert subjects.pop("pending-plain-no-link") == subjects["pending-plain"]
    assert len({*subjects.values()}) == len(subjects)


def test_a_mail_follows_the_readers_colour_scheme() -> None:
    for mail in gallery_mails():
        assert '<meta name="color-scheme" content="light dark">' in mail.mail.html, mail.name
        assert "@media (prefers-color-scheme: dark)" in mail.mail.html, mail.name
        coloured = re.findall(r"<[^>]*style=\"[^\"]*(?:color:#|background:#)[^>]*>", mail.mail.html)
        assert [tag for tag in coloured if "class=" not in tag] == [], mail.name


def test_a_mail_names_services_by_their_titles() -> None:
    for mail in gallery_mails():
        assert not re.search("exchange-online|tenant_admin|in_force", mail.mail.text + mail.mail.html), mail.name


def test_a_mail_has_one_button_to_its_page_before_the_details() -> None:
    for mail in gallery_mails():
        buttons = mail.mail.html.count('class="button"')
        is_without = mail.name.startswith(("copied", "sign_in_code", "delegate_begins")) or "no-link" in mail.name
        assert buttons == (0 if is_without else 1), mail.name


def test_the_facts_a_decision_needs_are_in_the_first_five_lines_of_a_mail() -> None:
    (asks,) = [mail.mail for mail in gallery_mails() if mail.name == "pending-plain"]

    first = " ".join(" ".join([line for line in asks.text.splitlines() if line.strip()][:5]).split())

    for fact in (
        *("Erin Engineer requests access to Exchange Online at Contoso", "read and export, for 1 h 30 min"),
        *("Tuesday 24 November 2026, 22:00 CET", "mailbox:anna@contoso.example", "has a deadline on Thursday"),
    ):
        assert fact in first
    assert asks.subject == "S2: Approval needed by 22:00 CET: Erin Engineer requests access to Exchange Online"
    assert asks.html.index("Sign in to decide") < asks.html.index("Earlier requests") < asks.html.index(">Duration<")


def test_mails_can_be_sorted_by_kind_and_get_no_automatic_replies() -> None:
    heads = {mail.name: email.message_from_bytes(raw(mail), policy=default) for mail in gallery_mails()}

    lists = {name: str(head["List-Id"]) for name, head in heads.items()}
    assert lists["pending-plain"] == lists["report-plain"] == "<contoso.requests.lockbox.vendor.example>"
    assert lists["policy_changed-plain"] == "<contoso.changes.lockbox.vendor.example>"
    assert lists["sign_in_code-plain"] == "<account.lockbox.vendor.example>"
    assert {str(head["Auto-Submitted"]) for head in heads.values()} == {"auto-generated"}
    assert {str(head["X-Auto-Response-Suppress"]) for head in heads.values()} == {"OOF, AutoReply"}
