"""The pages that are made, by file name."""

from collections.abc import Callable, Mapping
from pathlib import Path

from reference import command_page, event_page, metric_page, problem_page, setting_page

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": setting_page.page,
    "cli.md": command_page.page,
    "events.md": event_page.page,
    "metrics.md": metric_page.page,
    "errors.md": problem_page.page,
}
