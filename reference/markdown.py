"""Tables and heads of Markdown pages."""

from collections.abc import Iterable, Sequence

MADE = "<!-- Made by `make reference`: change the code that it describes, not this page. -->"


def head(title: str, introduction: str) -> str:
    """Return a page's beginning."""
    return f"# {title}\n\n{MADE}\n\n{introduction.strip()}\n"


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; a bar in a cell is escaped."""
    cells = [names, ["---"] * len(names), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in cells)
