"""The catalogue file: it is read as written, and each mistake is named by file, line and field."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from catalogue.load import MOST_BYTES, SAMPLE, CatalogueRefused, read_catalogue, sample_catalogue
from catalogue.service_catalogue import Catalogue, Plan, Service
from catalogue.unsafe_settings import UnsafeSettings
from config.settings import Settings, load
from tests.each import each

GOOD = """\
services:
  mail:
    title: Mail
    actions: [read, export]
plans:
  gold: {lockbox: true}
  basic: {lockbox: false}
"""
CHECKOUT = Path(__file__).parents[2]
MISTAKES = {
    "an unknown field": (
        "title: Mail",
        "title: Mail\n    tittle: Post",
        4,
        "services.mail.tittle",
        "remove this field",
    ),
    "a missing field": ("    title: Mail\n", "", 2, "services.mail.title", "add this field"),
    "a key twice": ("    actions", "    title: Post\n    actions", 4, "services.mail.title", "also on line 3"),
    "a service twice": ("plans:", "  mail: {title: Mail}\nplans:", 5, "services.mail", "also on line 2"),
    "an anchor": ("title: Mail", "title: &t Mail", 3, "services.mail.title", "remove &t"),
    "an alias": ("title: Mail", "title: *t", 3, "services.mail.title", "*t is an alias"),
    "an alias as a key": ("title: Mail", "*t : Mail", 3, "services.mail", "plain text"),
    "a tag": ("title: Mail", "title: !!str Mail", 3, "services.mail.title", "remove the tag"),
    "a tag of Python": (
        "title: Mail",
        "title: !!python/name:os.system x",
        3,
        "services.mail.title",
        "remove the tag",
    ),
    "a merge": ("    title: Mail", "    <<: {title: Mail}", 3, "services.mail", "merging"),
    "a list as a key": ("    title: Mail", "    ? [title]\n    : Mail", 3, "services.mail", "as text"),
    "a directive": ("services:", "%YAML 1.1\n---\nservices:", 1, "", "begins with %"),
    "a second document": ("plans:", "---\nplans:", 5, "", "one document"),
    "a tab": ("    title: Mail", "\ttitle: Mail", 3, "", "mend the YAML"),
    "an open bracket": ("[read, export]", "[read, export", 5, "", "mend the YAML"),
    "a control character": ("title: Mail", "title: M\x07l", 3, "", "U+0007"),
    "a name in capitals": ("  mail:", "  Mail:", 2, "services.Mail", "small letters"),
    "a title of two lines": ("title: Mail", 'title: "a\\nb"', 3, "services.mail.title", "one line"),
    "a title of nothing": ("title: Mail", 'title: ""', 3, "services.mail.title", "at least 1"),
    "a long title": ("title: Mail", f"title: {'x' * 101}", 3, "services.mail.title", "at most 100"),
    "a number as a title": ("title: Mail", "title: 7", 3, "services.mail.title", "write text"),
    "yes for true": ("{lockbox: true}", "{lockbox: yes}", 6, "plans.gold.lockbox", '"yes" in quotes'),
    "text for true": ("{lockbox: true}", '{lockbox: "true"}', 6, "plans.gold.lockbox", "true or false"),
    "a number in octal": ("title: Mail", "title: 0777", 3, "services.mail.title", '"0777" in quotes'),
    "one action as text": ("[read, export]", "read", 4, "services.mail.actions", "a list"),
    "no action": ("[read, export]", "[]", 4, "services.mail.actions", "at least 1"),
    "an action twice": ("[read, export]", "[read, read]", 4, "services.mail.actions[1]", "each action once"),
    "an action in capitals": ("[read, export]", "[Read]", 4, "services.mail.actions[0]", "small letters"),
    "a plan that is text": ("{lockbox: true}", "all", 6, "plans.gold", "name: value"),
    "no plan": ("  gold: {lockbox: true}\n  basic: {lockbox: false}\n", "", 5, "plans", "name: value"),
    "a list of services": ("services:\n  mail:", "services:\n  - mail:", 1, "services", "name: value"),
}


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "catalogue.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CatalogueRefused) as refused:
        read_catalogue(path)
    return str(refused.value)


def test_a_catalogue_has_services_actions_and_plans(tmp_path: Path) -> None:
    found = read_catalogue(written(tmp_path, GOOD))

    assert found.services == {"mail": Service(title="Mail", actions=("read", "export"))}
    assert found.plans == {"gold": Plan(), "basic": Plan(lockbox=False)}


@each("mistake", list(MISTAKES))
def test_a_mistake_in_a_catalogue_is_named_by_file_line_and_field(tmp_path: Path, mistake: str) -> None:
    good, bad, line, field, words = MISTAKES[mistake]
    assert good in GOOD
    path = written(tmp_path, GOOD.replace(good, bad, 1))

    said = refusal(path)

    assert said.startswith(f"{path}:{line}: {field + ': ' if field else ''}"), said
    assert words in said
    assert "\n" not in said


def test_all_mistakes_in_a_catalogue_are_reported_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD.replace("title: Mail", "titel: Mail").replace("lockbox: false", "lockbox: 0"))

    places = [line.removeprefix(f"{path}:").split(": ")[:2] for line in refusal(path).splitlines()]

    assert places == [["2", "services.mail.title"], ["3", "services.mail.titel"], ["7", "plans.basic.lockbox"]]


def test_a_catalogue_with_a_thousand_mistakes_prints_twenty_lines(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + "".join(f"made_up_{number}: 1\n" for number in range(1000)))

    assert len(refusal(path).splitlines()) == 21
    assert "and 980 more" in refusal(path)


@each(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"# nothing but a remark\n", "is empty"),
        (b"services: caf\xe9\n", "1: save the file as UTF-8"),
        (GOOD.encode("utf-16"), "save the file as UTF-8"),
        (GOOD.encode() + b"#" * MOST_BYTES, "make the file smaller"),
        (b"a: " + b"[" * 100 + b"]" * 100, "nest at most"),
        (b"[" * 2000, "nesting depth"),
        (b"plain text", "name: value"),
        (b"[1, 2]", "name: value"),
        (b"plans: {}\n", "add this field"),
    ],
)
def test_an_invalid_catalogue_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    assert words in refusal(written(tmp_path, content))


def test_a_missing_catalogue_file_is_refused(tmp_path: Path) -> None:
    assert "the catalogue cannot be read" in refusal(tmp_path / "none.yaml")
    assert "the catalogue cannot be read" in refusal(tmp_path)


def test_a_catalogue_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    assert read_catalogue(written(tmp_path, b"\xef\xbb\xbf" + GOOD.encode())) == read_catalogue(
        written(tmp_path, GOOD)
    )


def test_development_uses_the_deployed_catalogue() -> None:
    assert (CHECKOUT / "deploy" / "catalogue.yaml").resolve() == SAMPLE
    assert Settings(environment="test").catalogue == sample_catalogue() == read_catalogue(SAMPLE)
    assert sample_catalogue().plans == {"standard": Plan(lockbox=True)}
    assert set(sample_catalogue().services) == {"exchange-online", "sharepoint-online", "onedrive"}


def test_the_catalogue_file_is_the_file_named_in_the_variable_lockbox_catalogue(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOCKBOX_CATALOGUE", str(written(tmp_path, GOOD)))

    assert set(load().catalogue.services) == {"mail"}


def test_a_process_with_an_invalid_catalogue_refuses_to_start_and_prints_a_line_per_mistake(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = written(tmp_path, GOOD.replace("title: Mail", "title: 7").replace("lockbox: false", "lockbox: 0"))
    monkeypatch.setenv("LOCKBOX_CATALOGUE", str(path))

    with pytest.raises(UnsafeSettings) as refused:
        load()

    assert str(refused.value).splitlines() == [
        f"{path}:3: services.mail.title: write text; in quotes, if it looks like a number",
        f"{path}:7: plans.basic.lockbox: write true or false",
    ]


def test_a_catalogue_built_in_code_is_validated_like_a_file() -> None:
    with pytest.raises(ValidationError, match="name each action once"):
        Catalogue(services={"mail": Service(title="Mail", actions=("read", "read"))}, plans={"gold": Plan()})
