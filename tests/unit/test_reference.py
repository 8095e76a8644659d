"""The pages of docs/reference: as the code is now, and with nothing left out."""

import re

import pytest

from config.setting_fields import SettingFields
from config.settings import Settings
from lockbox.notifications.audience import TYPES
from reference import command_page, event_page, metric_page, setting_page
from reference.markdown import MADE, table
from reference.pages import FOLDER, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_reference_page_matches_the_code(name: str) -> None:
    assert (FOLDER / name).read_text() == PAGES[name](), "run `make reference`"


def test_every_docs_page_labelled_as_generated_is_generated() -> None:
    assert {page.name for page in FOLDER.glob("*.md") if MADE in page.read_text()} == set(PAGES)


def test_every_setting_has_a_description_and_a_row_in_the_reference() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", setting_page.page(), re.MULTILINE)

    assert setting_page.attribute_texts(SettingFields).keys() == Settings.model_fields.keys()
    assert len(rows) >= len(Settings.model_fields)
    assert {f"LOCKBOX_{name.upper()}" for name in Settings.model_fields} - set(rows) == {
        "LOCKBOX_FLOWER_UNAUTHENTICATED_API"
    }


def test_a_setting_is_shown_in_the_reference_with_its_bounds_and_default() -> None:
    page = setting_page.page()

    assert "| `LOCKBOX_API_PROCESSES` | number, 1 to 64 | `1` |" in page
    assert "| `LOCKBOX_ENVIRONMENT` | `development`, `test`, `production` | `development` |" in page
    assert "| `LOCKBOX_DATABASE_URL` | secret | - |" in page
    assert "aW5zZWN1cmU" not in page


def test_every_heading_of_the_settings_reference_precedes_a_field() -> None:
    assert setting_page.SECTIONS.keys() <= Settings.model_fields.keys()
    assert next(iter(Settings.model_fields)) == next(iter(setting_page.SECTIONS))


def test_every_type_of_request_event_is_described_in_the_reference() -> None:
    assert event_page.REQUEST_EVENTS.keys() == TYPES


def test_every_cli_command_has_a_heading_in_the_reference() -> None:
    words = [" ".join(words) for words, _ in command_page.commands()]

    assert re.findall(r"^#{2,} (lockbox .*)$", command_page.page(), re.MULTILINE) == words
    assert {"lockbox request submit", "lockbox audit verify", "lockbox gate identity add"} <= set(words)


def test_the_metrics_reference_lists_metrics_as_scraped() -> None:
    page = metric_page.page()

    assert "| `lockbox_gate_answers_total` | counter | `decision`, `gateway`, `reason`, `service` |" in page
    assert "| `lockbox_deadline_lag_seconds` | histogram | - |" in page
    assert "| `lockbox_redis_up` | gauge | - |" in page


def test_a_vertical_bar_in_a_table_cell_of_the_reference_is_escaped() -> None:
    assert table(("a",), [("x | y",)]) == "| a |\n| --- |\n| x \\| y |\n"
