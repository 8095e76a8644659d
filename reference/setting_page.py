"""The page of settings: names, types, bounds and defaults as pydantic-settings has them, texts from the fields."""

import ast
import inspect
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from catalogue.service_catalogue import Catalogue
from config.client import ClientSettings
from config.setting_fields import SettingFields
from reference.markdown import head, table

PREFIX = "LOCKBOX_"
INTRODUCTION = """
Each process reads its settings once, when it starts: from environment variables, or from files of that name in
`/run/secrets`. A list is JSON. A process that lacks a setting, or has an unsafe one in production, names it and
exits; no value is quoted. Which process needs which setting is in
[install](../operating/install.md).
"""
SECTIONS = {
    "environment": "Installation",
    "database_url": "Servers",
    "smtp_url": "Mail",
    "public_url": "API, proxies and keys",
    "issuers": "Signing in",
    "token_days": "API tokens",
    "flower_user": "Flower",
    "audit_name": "Audit log",
    "live_streams": "Connections and the gate",
    "metrics_token": "Metrics",
    "playground": "Processes and logs",
    "submissions_per_person": "Limits and retention",
    "failpoint": "Tests",
    "catalogue": "Catalogue",
}
"""The heading before a field; it holds until the next one."""
WORDS: Mapping[type, str] = {
    bool: "`true` or `false`",
    int: "number",
    float: "number",
    str: "text",
    Path: "path",
    SecretStr: "secret",
}
CLIENT = """
## The command `lockbox`

For a terminal: its user sets these, and no server reads them.

"""
CLIENT_TEXTS = {
    "url": "The API's address.",
    "token": "Your API token, or a token of your identity provider. Without it, `lockbox sign-in` is used.",
    "catalogue": "The file that `lockbox gate test` and `lockbox gate check` read.",
    "state_home": "The folder in which `lockbox sign-in` keeps its token, in `lockbox/sign-in.json`.",
}


def page() -> str:
    """Return the page."""
    texts = attribute_texts(SettingFields)
    parts = [head("Settings", INTRODUCTION)]
    rows: list[Sequence[str]] = []
    for name, field in SettingFields.model_fields.items():
        if name in SECTIONS:
            parts += [_section(rows), f"\n## {SECTIONS[name]}\n\n"]
            rows = []
        rows.append(_row(name, field, texts[name]))
    parts += [_section(rows), CLIENT]
    parts.append(
        _section([_row(name, field, CLIENT_TEXTS[name]) for name, field in ClientSettings.model_fields.items()])
    )
    return "".join(parts)


def attribute_texts(settings: type[BaseSettings]) -> dict[str, str]:
    """Return the text under each field of a class of settings, as its source has it."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(settings)).body if isinstance(node, ast.ClassDef))
    found = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = ast.literal_eval(text.value)
    return found


def _section(rows: Sequence[Sequence[str]]) -> str:
    return table(("setting", "value", "default", "meaning"), rows) if rows else ""


def _row(name: str, field: FieldInfo, text: str) -> Sequence[str]:
    variable = str(field.validation_alias or f"{PREFIX}{name.upper()}")
    return (f"`{variable}`", _value(field), _default(field), text)


def _value(field: FieldInfo) -> str:
    bounds = {name: getattr(one, name) for one in field.metadata for name in ("ge", "gt", "le") if hasattr(one, name)}
    said = _type(field.annotation)
    if "ge" in bounds:
        return f"{said}, {bounds['ge']:,} to {bounds['le']:,}"
    if "gt" in bounds:
        return f"{said}, above {bounds['gt']:,} and at most {bounds['le']:,}"
    return said


def _type(annotation: Any) -> str:  # noqa: ANN401 - whatever a field is annotated with
    if annotation in WORDS:
        return WORDS[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in {Union, UnionType} and NoneType in arguments:
        return _type(next(argument for argument in arguments if argument is not NoneType))
    if origin is tuple:
        return {"secret": "list of secrets", "path": "list of paths"}.get(_type(arguments[0]), "list")
    return "path" if annotation is Catalogue else "text"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "the sample"
    if field.default is None or field.default == ():
        return "-"
    if isinstance(field.default, tuple):
        return "a key that everybody knows"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"
