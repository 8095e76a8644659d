"""Tests of the distance "database": on a real Postgres and Redis."""

import pytest

pytest.register_assert_rewrite("tests.database.scenes", "tests.database.postbag")
