"""What the pages say in a few words: counted things, times of day, links to cases."""

from datetime import UTC, datetime, timedelta

import pytest

from api.portal import phrases
from api.portal.requests.request import case_link
from lockbox.audit.event_search import RECIPIENT
from lockbox.audit.reported_mails import mailed, some
from lockbox.notifications.mail_text import joined

AT = datetime(2026, 11, 28, 20, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        (["mailbox:anna@contoso.example"], "mailbox:anna@contoso.example"),
        (["mailbox:a", "mailbox:b"], "2 mailboxes"),
        (["site:a", "site:b", "site:c"], "3 sites"),
        (["policy:a", "policy:b"], "2 policies"),
        (["key:a", "key:b"], "2 keys"),
        (["mailbox:a", "site:b"], "2 resources"),
        ([f"mailbox:{'w' * 100}"], "1 mailbox"),
        (["mailbox:\u0430nna@contoso.example"], "1 mailbox"),
    ],
)
def test_a_sentence_names_one_short_plain_resource_and_otherwise_counts_resources(
    resources: list[str], said: str
) -> None:
    assert phrases.things(resources) == said


@pytest.mark.parametrize(
    ("words", "said"), [(["read"], "read"), (["read", "export"], "read and export"), (list("abc"), "a, b and c")]
)
def test_several_words_are_joined_with_commas_and_a_final_and(words: list[str], said: str) -> None:
    assert joined(words) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (900, "15 minutes"),
        (60, "1 minute"),
        (5400, "1 hour 30 minutes"),
        (7200, "2 hours"),
        (3601, "1 hour 1 second"),
    ],
)
def test_a_duration_in_a_sentence_is_written_out(seconds: int, said: str) -> None:
    assert phrases.full_duration(seconds) == said


@pytest.mark.parametrize(
    ("after", "zone", "said"),
    [
        (timedelta(hours=2), "UTC", "22:00 today"),
        (timedelta(hours=2), "Europe/Berlin", "23:00 today"),
        (timedelta(hours=4), "UTC", "00:00 tomorrow"),
        (timedelta(hours=-21), "UTC", "23:00 yesterday"),
        (timedelta(days=2, seconds=7), "UTC", "20:00:07 on 30 November"),
        (timedelta(days=40), "UTC", "20:00 on 7 January 2027"),
    ],
)
def test_a_time_is_written_relative_to_the_readers_day(after: timedelta, zone: str, said: str) -> None:
    assert phrases.time_of_day(AT + after, AT, zone) == said


def test_an_hour_made_ambiguous_by_daylight_saving_is_shown_with_its_zone() -> None:
    at = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)

    assert phrases.time_of_day(at, at, "Europe/Berlin") == "02:30 CEST today"
    assert phrases.time_of_day(at + timedelta(hours=1), at, "Europe/Berlin") == "02:30 CET today"


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (timedelta(hours=2, minutes=5, seconds=59), "in 2 h 5 min"),
        (timedelta(minutes=1), "in 1 min"),
        (timedelta(seconds=59), "now"),
        (timedelta(seconds=-59), "now"),
        (timedelta(seconds=-60), "1 min ago"),
        (timedelta(days=-6, hours=-3), "6 d 3 h ago"),
        (timedelta(days=-7, hours=-3), "7 d ago"),
        (timedelta(days=1, minutes=4), "in 1 d 4 min"),
    ],
)
def test_a_relative_time_says_how_far_away_the_time_is(after: timedelta, said: str) -> None:
    assert phrases.away(AT + after, AT) == said


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (timedelta(hours=2, minutes=5, seconds=59), "2 h 5 min left"),
        (timedelta(minutes=12, seconds=5), "12 min 5 s left"),
        (timedelta(seconds=1), "1 s left"),
        (timedelta(milliseconds=999), "over"),
        (timedelta(days=-1), "over"),
    ],
)
def test_the_words_of_a_countdown_begin_with_the_time_left(after: timedelta, said: str) -> None:
    assert phrases.left(AT + after, AT) == said


@pytest.mark.parametrize(
    ("template", "case", "link"),
    [
        ("https://desk.example/{case}", "CASE-1", "https://desk.example/CASE-1"),
        ("https://desk.example/?q={case}", "1&x=/../#?", "https://desk.example/?q=1%26x%3D%2F..%2F%23%3F"),
        (None, "CASE-1", ""),
        ("https://desk.example/{case}", None, ""),
    ],
)
def test_a_case_reference_links_to_the_vendors_page(template: str | None, case: str | None, link: str) -> None:
    assert case_link(template, case) == link


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], ""),
        (["Ann"], "Ann"),
        (["Ann", "Abe", "Amir", "Max", "Mia", "Eve"], "Ann, Abe, Amir, Max, Mia, Eve"),
        (["Ann", "Abe", "Amir", "Max", "Mia", "Eve", "Erin"], "Ann, Abe, Amir, Max, Mia and 2 others"),
    ],
)
def test_a_sentence_about_more_than_six_people_names_five_and_counts_the_others(names: list[str], said: str) -> None:
    assert some(names) == said


def test_a_sentence_about_mails_names_known_recipients_and_counts_the_others() -> None:
    said = {"sent": 4, "mails": {str(number): ["", "mail", "sent"] for number in range(4)}}
    recipients = {
        f"{RECIPIENT}_{number}": f"{name} <x@example>" for number, name in enumerate(("Ann", "Abe", "Amir"))
    }

    assert mailed(said, recipients) == "mailed to Ann, Abe, Amir and 1 other"
    assert mailed(said, recipients, 2) == "mailed to Ann, Abe and 2 others"
    assert mailed(said, {}) == "mailed to 4 people"
