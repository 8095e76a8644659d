"""Show what the far tests found at the end of a run, even if all is well."""

import pytest

SUMMARY = "contract"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, summary in getattr(report, "user_properties", ()):
                if name == SUMMARY and getattr(report, "when", "") == "call":
                    terminalreporter.write_line(str(summary))
