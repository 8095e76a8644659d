"""The database of the tests that compare SQL statements with the schema."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine

from harness.stage import Urls


@pytest.fixture
def superuser(urls: Urls) -> Iterator[Engine]:
    """This test's database with every right; the driver prepares nothing by itself."""
    engine = create_engine(urls.superuser, connect_args={"prepare_threshold": None})
    yield engine
    engine.dispose()
