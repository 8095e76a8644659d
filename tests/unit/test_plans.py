"""Plans of tenants, by configuration."""

import pytest

from config.service_catalogue import Plan
from config.settings import Settings, UnsafeSettings, load


def test_without_configuration_there_is_one_plan_that_includes_the_lockbox() -> None:
    assert Settings(environment="test").plans == {"standard": Plan(lockbox=True)}


def test_plans_are_read_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKBOX_PLANS", '{"gold": {}, "basic": {"lockbox": false}}')

    assert load().plans == {"gold": Plan(), "basic": Plan(lockbox=False)}


@pytest.mark.parametrize(
    "value", ["{not json", "[]", '{"gold": {"made_up": 1}}', '{"Not A Name": {}}', '{"gold": 1}']
)
def test_what_are_no_plans_is_refused_by_the_variables_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("LOCKBOX_PLANS", value)

    with pytest.raises(UnsafeSettings, match="LOCKBOX_PLANS"):
        load()
