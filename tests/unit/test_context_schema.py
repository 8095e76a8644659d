"""What a catalogue may say of the parameters and levels of a service, and which values then fit."""

from pathlib import Path
from typing import Any

import pytest

from catalogue.context_schema import ContextValue, defects
from catalogue.load import CatalogueRefused, read_catalogue
from catalogue.service_catalogue import Level, Service
from cli import inputs

CATALOGUE = """\
services:
  orders:
    title: Orders
    actions: [read, change, purge, look]
    levels: {{look: read}}
    context:
      type: object
      properties:
        environment: {{type: string, enum: [production, staging]}}
        ticket: {{type: string, pattern: "^[A-Z]+-[0-9]+$", maxLength: 20}}
        rows: {{type: integer, minimum: 1, maximum: 100}}
        dry_run: {{type: boolean}}
        {more}
      required: [environment]
      additionalProperties: false
plans:
  standard: {{lockbox: true}}
"""


def orders(folder: Path, more: str = "") -> Service:
    """Return the service of a catalogue with one more parameter."""
    path = folder / "catalogue.yaml"
    path.write_text(CATALOGUE.format(more=more), encoding="utf-8")
    return read_catalogue(path).services["orders"]


@pytest.mark.parametrize(
    ("context", "wrong"),
    [
        ({"environment": "staging", "ticket": "AB-1", "rows": 100, "dry_run": False}, {}),
        ({}, {"environment": "add this parameter"}),
        ({"environment": "prod"}, {"environment": "choose production, staging"}),
        ({"environment": "staging", "rows": True}, {"rows": "write a whole number"}),
        ({"environment": "staging", "dry_run": 1}, {"dry_run": "write true or false"}),
        ({"environment": "staging", "rows": 101}, {"rows": "write 100 or less"}),
        ({"environment": "staging", "ticket": "ab-1"}, {"ticket": "write it in the form ^[A-Z]+-[0-9]+$"}),
        ({"environment": "staging", "ticket": "A" * 21}, {"ticket": "write at most 20 characters"}),
        (
            {"environment": "staging", "x": 1},
            {"x": "there is no parameter of that name; choose from environment, ticket, rows, dry_run"},
        ),
    ],
)
def test_context_values_must_fit_the_declared_parameters(
    tmp_path: Path, context: dict[str, ContextValue], wrong: dict[str, str]
) -> None:
    assert dict(defects(orders(tmp_path).context, context)) == wrong


def test_a_service_without_declared_parameters_accepts_no_context() -> None:
    assert dict(defects(None, {"x": 1})) == {"x": "there is no parameter of that name; this service declares none"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "x: {type: number}",
            "13: services.orders.context.properties.x.type: write 'string', 'integer' or 'boolean'",
        ),
        ("x: {type: string, oneOf: []}", "properties.x.oneOf: remove this field"),
        (
            'x: {type: string, pattern: "(?=a)"}',
            "properties.x.pattern: write a regular expression without look-around",
        ),
        ("x: {type: integer, pattern: a}", "properties.x: pattern, minLength and maxLength are for type: string"),
        ("x: {type: string, minimum: 1}", "properties.x: minimum and maximum are for type: integer"),
        ("x: {type: integer, enum: [a]}", "properties.x: write choices that are each a integer"),
        ("x: {type: string, minLength: 3, maxLength: 2}", "properties.x: the upper bound is below the lower one"),
        ("X: {type: string}", "properties.X: write a name of small letters"),
    ],
)
def test_unsupported_json_schema_keywords_are_refused_with_their_line(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(CatalogueRefused) as refused:
        orders(tmp_path, more)

    assert said in str(refused.value)


def test_parameter_patterns_take_linear_time(tmp_path: Path) -> None:
    service = orders(tmp_path, 'x: {type: string, pattern: "^(a+)+$"}')

    assert "x" in dict(defects(service.context, {"environment": "staging", "x": "a" * 400 + "b"}))


def test_an_action_without_a_declared_level_gets_the_level_of_the_same_name_or_else_the_highest_level(
    tmp_path: Path,
) -> None:
    assert orders(tmp_path).levels == {
        "read": Level.READ,
        "change": Level.CHANGE,
        "purge": Level.ADMIN,
        "look": Level.READ,
    }


@pytest.mark.parametrize(
    ("typed", "value"),
    [("a=production", "production"), ("a=10", 10), ("a=true", True), ('a="10"', "10"), ("a=b=c", "b=c"), ("a=", "")],
)
def test_the_cli_reads_a_parameter_value_as_a_number_or_as_true_or_false_or_as_text(typed: str, value: Any) -> None:
    found = inputs.parameters([typed])

    assert found == {"a": value}
    assert type(found["a"]) is type(value)
