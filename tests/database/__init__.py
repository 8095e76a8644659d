"""Tests of the distance: database."""

import pytest

pytest.register_assert_rewrite("tests.database.scenes", "tests.database.postbag")
