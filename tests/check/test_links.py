"""The links of all pages: each leads to an existing file and heading, and every page can be reached.

Commands on pages contain no date, so that they are still right next year.
"""

import re
from functools import cache
from pathlib import Path

from tests.check.sources import HOME, source
from tests.each import each

INDEX = HOME / "docs" / "README.md"
ALSO = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "packages/guard-python/README.md",
    "docs/README.md",
)
PAGES = sorted({*(HOME / "docs").rglob("*.md"), *(HOME / name for name in ALSO)})
FENCED = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)[^`].*?\1")
INDENTED = re.compile(r"^(?:    |\t).*$", re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)|<img[^>]* src=\"([^\"]+)\"")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
MENTIONED = re.compile(r"`((?:docs|deploy|bench/results)/[\w./-]+\.(?:md|py|mjs|go|yaml|yml|conf|ini|lua|cfg|json))`")

DATED = re.compile(r"--[a-z-]+[ =][\"']?20\d\d-\d\d.*")


def prose(page: Path) -> str:
    """Return a page without its code."""
    return CODE.sub("", INDENTED.sub("", FENCED.sub("", page.read_text())))


def links(page: Path) -> list[tuple[Path, str]]:
    """Return the targets in the repository to which a page links: file and anchor."""
    found = [one or two for one, two in LINK.findall(prose(page))]
    inside = [target.partition("#") for target in found if not re.match(r"[a-z]+:", target)]
    return [((page.parent / path).resolve() if path else page, anchor) for path, _, anchor in inside]


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    found: list[str] = []
    for heading in HEADING.findall(FENCED.sub("", page.read_text())):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        again = sum(one == slug or re.fullmatch(rf"{re.escape(slug)}-\d+", one) is not None for one in found)
        found.append(f"{slug}-{again}" if again else slug)
    return frozenset(found)


@each("page", PAGES)
def test_every_link_in_the_docs_has_a_target(page: Path) -> None:
    broken = [
        f"{target.relative_to(HOME)}#{anchor}"
        for target, anchor in links(page)
        if not target.exists() or (anchor and anchor not in anchors(target))
    ]

    assert broken == []


@each("page", PAGES)
def test_every_file_named_in_the_docs_exists(page: Path) -> None:
    if page.name != "CHANGELOG.md":
        assert [name for name in MENTIONED.findall(page.read_text()) if not (HOME / name).exists()] == []


def test_every_docs_page_is_reachable_from_the_index() -> None:
    reached, ahead = {INDEX}, [INDEX]
    while ahead:
        for target, _ in links(ahead.pop()):
            pages = [target] if target.suffix == ".md" else sorted(target.glob("*.md")) if target.is_dir() else []
            ahead += [page for page in pages if page not in reached]
            reached |= set(pages)

    assert [str(page.relative_to(HOME)) for page in (HOME / "docs").rglob("*.md") if page not in reached] == []


def test_the_readme_is_short_and_links_to_the_index() -> None:
    readme = HOME / "README.md"

    assert len(readme.read_text().splitlines()) <= 120
    assert (INDEX, "") in links(readme)


def test_headings_of_the_docs_become_the_same_anchors_as_on_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# The `a-b` command, and C\n\n```sh\n# no heading\n```\n\n## Try it\n\n## Try it\n\n## [Linked](x.md) one\n"
    )

    assert anchors(page) == {"the-a-b-command-and-c", "try-it", "try-it-1", "linked-one"}


@each("page", PAGES)
def test_no_command_shown_in_the_docs_contains_a_date(page: Path) -> None:
    if page.name != "CHANGELOG.md":
        assert DATED.findall(page.read_text()) == []


def test_decision_notes_are_short_and_begin_with_the_decision() -> None:
    off = []
    for note in sorted((HOME / "docs" / "decisions").glob("*.md")):
        text = source(note)
        if not re.match(r"# \d+\. .+\n\n\*\*Decision\.\*\* ", text) or len(text.split()) > 250:
            off.append(note.stem)

    assert off == []
