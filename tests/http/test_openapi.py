"""The committed description of the API is that of the code."""

import json

import pytest

from api import openapi


@pytest.fixture(scope="module")
def once() -> str:
    """The description, made once."""
    return openapi.described()


def test_the_committed_description_is_that_of_the_app(once: str) -> None:
    committed = openapi.FILE.read_text(encoding="utf-8")

    assert committed == once, "write it anew: python -m api.openapi"


def test_the_description_is_alike_each_time_and_names_no_place(once: str) -> None:
    again = openapi.described()

    assert once == again
    assert json.loads(once)["info"]["title"] == "Lockbox"
    assert "localhost" not in once
