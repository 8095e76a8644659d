"""The committed description of the API is that of the code."""

import json

from api import openapi


def test_the_committed_description_is_that_of_the_app() -> None:
    committed = openapi.FILE.read_text(encoding="utf-8")

    assert committed == openapi.described(), "write it anew: python -m api.openapi"


def test_the_description_is_alike_each_time_and_names_no_place() -> None:
    once, again = openapi.described(), openapi.described()

    assert once == again
    assert json.loads(once)["info"]["title"] == "Lockbox"
    assert "localhost" not in once
