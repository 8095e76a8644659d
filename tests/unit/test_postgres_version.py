"""Which versions of Postgres are refused, and in which words."""

import pytest

from lockbox.postgres_version import too_old


@pytest.mark.parametrize("number", [180000, 180004, 190001, 260000])
def test_postgres_version_18_and_later_are_accepted(number: int) -> None:
    assert too_old(number) is None


@pytest.mark.parametrize(("number", "version"), [(170006, "17.6"), (150017, "15.17"), (179999, "17.9999")])
def test_an_older_postgres_version_is_named(number: int, version: str) -> None:
    assert too_old(number) == f"this is Postgres {version}, and Lockbox needs 18 or later"
