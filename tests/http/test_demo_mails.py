"""The demo inbox: mails newest first, by recipient, with usable links and codes; hostile mails do nothing."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from api.playground import mailbox
from api.playground.mailbox import Envelope, MailFolder
from tests.http.playground_world import HOME, here, playground, put, put_raw
from tests.http.portal import OpenPortal, Portal

NASTY = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def world(open_portal: OpenPortal) -> Portal:
    return open_portal()


@pytest.fixture
def playing(world: Portal, tmp_path: Path) -> Portal:
    return playground(world, tmp_path)


def only(playing: Portal, path: str = "/inbox") -> str:
    """Return the path of the one mail that is there."""
    (link,) = {link for link in here(playing).get(path).read.links if link.startswith("/inbox/")}
    return link


def test_an_empty_demo_inbox_says_what_to_do(playing: Portal) -> None:
    assert "There are no mails yet. Submit a request" in here(playing).get("/inbox").words


def test_the_demo_inbox_shows_the_newest_mail_first_with_recipient_and_time(playing: Portal, tmp_path: Path) -> None:
    put(tmp_path, "9.old", to="max@vendor.example", subject="Review needed")
    put(tmp_path, "1.new", to="ann@contoso.example", subject="Approval needed")

    words = here(playing).get("/inbox").words

    assert words.index("Approval needed to ann@contoso.example") < words.index("Review needed to max@vendor")
    assert "Mar 2030" in words


def test_mails_in_the_demo_inbox_can_be_filtered_by_address(playing: Portal, tmp_path: Path) -> None:
    put(tmp_path, "1", to="max@vendor.example", subject="Review needed")
    put(tmp_path, "2", to="ann@contoso.example", subject="Approval needed")

    page = here(playing).get("/inbox?to=Ann@contoso.example")
    none = here(playing).get("/inbox?to=tara@contoso.example")

    assert "Review needed" not in page.words
    assert "Approval needed" in page.words
    assert "There are no mails to tara@contoso.example yet" in none.words
    assert 'value="max@vendor.example"' in none.text


def test_in_the_demo_inbox_only_links_to_lockbox_pages_can_be_followed(playing: Portal, tmp_path: Path) -> None:
    put(
        tmp_path, text=f"See {HOME}/requests/1-2. Not {HOME}.evil.example/x nor https://evil.example/ or javascript:a"
    )

    page = here(playing).get(only(playing))

    assert [link for link in page.read.links if "://" in link] == [f"{HOME}/requests/1-2"]
    assert "https://evil.example/" in page.words


def test_the_demo_lets_the_reader_act_as_the_recipient_of_a_mail(playing: Portal, tmp_path: Path) -> None:
    put(tmp_path, to=playing.address("ann"), text=f"Decide at {HOME}/requests/1-2")
    browser = here(playing)

    page = browser.get(only(playing))
    answer = browser.send("/play", page.form("/play").fields)

    assert page.form("/play").fields == {"who": "ann", "next": "/requests/1-2"}
    assert answer.headers["location"] == "/requests/1-2"
    assert "Be Ann, and follow the link" in page.words


def test_a_code_in_a_demo_mail_can_be_copied(playing: Portal, tmp_path: Path) -> None:
    put(tmp_path, text="Enter this code where you requested it:\n\n    1234 5678\n\nIt works once.")

    assert 'readonly value="1234 5678"' in here(playing).get(only(playing)).text


def test_a_hostile_mail_in_the_demo_inbox_runs_no_script(playing: Portal, tmp_path: Path) -> None:
    put(
        tmp_path,
        to="a@b.example",
        subject=NASTY,
        text=f'{NASTY} {HOME}/"onclick=x',
        html=f"<html><head></head>{NASTY}",
    )
    browser = here(playing)

    page = browser.get(only(playing))
    looks = browser.get(f"{page.path}/page")

    for one in (browser.get("/inbox"), page):
        assert "<script>alert" not in one.text
        assert "<img" not in one.text
        assert len(one.read.scripts) == 2
    policy = looks.answer.headers["content-security-policy"]
    directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["style-src"] == "'unsafe-inline'"
    assert directives["frame-ancestors"] == "'self'"
    assert directives["form-action"] == "'none'"
    assert "allow-scripts" not in directives["sandbox"]
    assert "allow-same-origin" not in directives["sandbox"]
    assert not {"script-src", "img-src", "connect-src", "frame-src"} & directives.keys()
    assert looks.answer.headers["x-content-type-options"] == "nosniff"


def test_the_frame_of_a_demo_mail_is_sandboxed(playing: Portal, tmp_path: Path) -> None:
    put(tmp_path, html="<html><head></head><body>Hello</body></html>")
    browser = here(playing)

    page = browser.get(only(playing))

    assert f'sandbox="allow-top-navigation-by-user-activation" src="{page.path}/page"' in page.text
    assert page.answer.headers["content-security-policy"].endswith("; frame-src 'self'")
    assert "frame-src" not in browser.get("/inbox").answer.headers["content-security-policy"]
    assert '<head><base target="_top">' in browser.get(f"{page.path}/page").text


def test_the_demo_inbox_skips_links_folders_pipes_and_too_large_files(playing: Portal, tmp_path: Path) -> None:
    new = tmp_path / "mail" / "new"
    (tmp_path / "secret").write_text("X-RcptTo: a@b.example\nSubject: secret\n\nsecret")
    (new / "link").symlink_to(tmp_path / "secret")
    (new / "folder").mkdir()
    os.mkfifo(new / "pipe")
    put_raw(tmp_path, "large", b"Subject: large\n\n" + b"x" * (2 * 1024 * 1024))
    put(tmp_path, "good", subject="Here")

    words = here(playing).get("/inbox").words

    assert "Here" in words
    assert "secret" not in words
    assert "large" not in words


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\xff\xfe",
        b"X-RcptTo: \xff\nSubject: =?utf-8?b?\xff?=\n\n",
        b"Subject: =?no-such?q?=41?=\nContent-Type: text/plain; charset=no-such\n\n\xff",
        b"Content-Type: multipart/alternative; boundary=x\n\n--x\n",
        b"Content-Type: text/plain; charset=hex\nContent-Transfer-Encoding: base64\n\n!!!",
        b"From: <<<>>>\nTo: ,,,\nX-RcptTo: a@b\nSubject: a\n b\n\n\x0b\x1b[31m",
        b"Subject: x\nContent-Type: text/html\n\n<b>alone</b>",
    ],
)
def test_the_demo_inbox_shows_arbitrary_bytes_as_far_as_possible(
    playing: Portal, tmp_path: Path, content: bytes
) -> None:
    put_raw(tmp_path, "odd", content)
    browser = here(playing)

    page = browser.get(only(playing))

    assert page.status == 200
    assert browser.get(f"{page.path}/page").status == 200


@pytest.mark.parametrize("key", ["0123456789abcdef", "..", "%2e%2e%2fsecret", "x" * 300, "%00"])
def test_an_unknown_mail_of_the_demo_inbox_is_not_found(playing: Portal, key: str) -> None:
    browser = here(playing)

    assert browser.get(f"/inbox/{key}").status in {404, 200 if key == ".." else 404}
    assert browser.get(f"/inbox/{key}/page").status == 404


def test_without_a_mail_folder_the_demo_inbox_is_empty(playing: Portal, tmp_path: Path) -> None:
    (tmp_path / "mail" / "new").rmdir()

    assert "There are no mails yet" in here(playing).get("/inbox").words


def test_the_demo_inbox_lists_at_most_a_hundred_mails(playing: Portal, tmp_path: Path) -> None:
    for number in range(103):
        put(tmp_path, f"{number}", subject=f"Mail-{number}-")

    words = here(playing).get("/inbox").words

    assert words.count("Mail-") == 100
    assert "Mail-102-" in words
    assert "Mail-2-" not in words


def test_listing_demo_mails_opens_no_mail_and_holds_no_connection(
    playing: Portal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "1", subject="Review needed")
    browser = here(playing)
    browser.get("/play")
    busy: list[int] = []
    newest = MailFolder.newest

    def watched(box: MailFolder, to: str = "") -> Sequence[Envelope]:
        busy.append(playing.db.engine.pool.checkedout())  # type: ignore[attr-defined]
        return newest(box, to)

    monkeypatch.setattr(MailFolder, "newest", watched)
    monkeypatch.setattr(mailbox, "message_from_bytes", lambda *_, **__: pytest.fail("a mail was opened"))

    assert "Review needed" in browser.get("/inbox").words
    assert busy == [0]
