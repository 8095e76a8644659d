"""How a requester had signed in, in words."""

from datetime import UTC, datetime

from lockbox.notifications import requester_text

AT = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


def test_a_demos_token_is_shown_as_one() -> None:
    assert requester_text.signed_in("token", "sample", None, AT) == "a demo token, without a sign-in"
    assert requester_text.signed_in("token", "token", None, AT) == "an API token, without a sign-in"
    assert requester_text.signed_in("session", "sample", AT, AT).startswith("as a demo user")
