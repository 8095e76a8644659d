"""Calls to the API. Its errors become one line in the terminal, and end the command with 1."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx
import typer
from rich.console import Console

from catalogue.unsafe_settings import UnsafeSettings
from cli import saved_token
from config.client import ClientSettings, load_client

SECONDS = 15
COMMENT_REQUIRED = "comment-required"
ANY_VERSION = "*"
TOO_BUSY = frozenset({429, 502, 503, 504})


def at(*parts: object) -> str:
    return "/".join(["/v1", *(quote(str(part), safe="") for part in parts)])


def headers(*, key: str | None = None, version: object = None) -> dict[str, str]:
    """`key` makes a call happen only once; with `version`, it fails if another version is current (`*`: any)."""
    version = version if version in {None, ANY_VERSION} else f'"{version}"'
    given = {"idempotency-key": key, "if-match": version}
    return {name: str(value) for name, value in given.items() if value is not None}


def chosen() -> ClientSettings:
    try:
        return load_client()
    except UnsafeSettings as unset:
        raise stop(str(unset)) from None


def shown() -> str:
    """Return the token in LOCKBOX_TOKEN, else the token that `lockbox sign-in` saved for this API."""
    where = chosen()
    if where.token is None:
        try:
            found = saved_token.read(where.kept_at, where.url)
        except saved_token.TokenExposed as exposed:
            raise stop(str(exposed)) from None
        if found is None:
            raise stop("run `lockbox sign-in`, or set LOCKBOX_TOKEN to your token; LOCKBOX_URL is the API's address")
        return found.token
    token = where.token.get_secret_value()
    if not (token and token.isascii() and token.isprintable()):
        raise stop("LOCKBOX_TOKEN does not contain a token: copy it again")
    return token


class NoAnswer(Exception):  # noqa: N818 - the name says what went wrong
    """The API cannot be reached, or is busy."""


def call(method: str, path: str, **parts: Any) -> Any:  # noqa: ANN401 - any JSON
    """Call `answer_of`, and end the command also if the API does not answer."""
    try:
        return answer_of(method, path, **parts)
    except NoAnswer as away:
        raise stop(str(away)) from None


def answer_of(
    method: str,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    is_anonymous: bool = False,
) -> Any:  # noqa: ANN401 - any JSON
    """Call the API and return its JSON, or None for an empty answer.

    `is_anonymous` omits the terminal's token. Raises NoAnswer if calling again may help.
    """
    bearing = {} if is_anonymous else {"authorization": f"Bearer {shown()}"}
    where = chosen()
    given = {name: value for name, value in (params or {}).items() if value is not None}
    try:
        answer = httpx.request(
            method,
            f"{where.url.rstrip('/')}{path}",
            params=given,
            json=body,
            headers=bearing | dict(headers or {}),
            timeout=SECONDS,
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswer(f"{where.url} does not answer ({type(error).__name__}): is LOCKBOX_URL right?") from None
    if answer.status_code in TOO_BUSY:
        raise NoAnswer(_told(answer))
    if not answer.is_success:
        raise stop(_told(answer))
    try:
        return answer.json() if answer.content else None
    except ValueError:
        raise stop(f"the server at {where.url} is not a Lockbox API: is LOCKBOX_URL right?") from None


@contextmanager
def download(path: str, params: Mapping[str, Any]) -> Iterator[Iterator[bytes]]:
    headers = {"authorization": f"Bearer {shown()}"}
    where = chosen()
    given = {name: value for name, value in params.items() if value is not None}
    url = f"{where.url.rstrip('/')}{path}"
    try:
        with httpx.stream("GET", url, params=given, headers=headers, timeout=SECONDS) as answer:
            if not answer.is_success:
                answer.read()
                raise stop(_told(answer))
            yield answer.iter_bytes()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise stop(f"{where.url} does not answer, or broke off ({type(error).__name__})") from None


def warn(line: str) -> None:
    Console(stderr=True, highlight=False).print(line, markup=False, soft_wrap=True)


def stop(line: str) -> typer.Exit:
    """Print why the command ends, and return the exception to raise."""
    Console(stderr=True, highlight=False).print(line, style="red", markup=False, soft_wrap=True)
    return typer.Exit(1)


def _told(answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        now = f" (it is {problem['current_state']} now)" if problem.get("current_state") else ""
        how = " Give it with --comment." if problem["code"] == COMMENT_REQUIRED else ""
        return f"{problem['code']}: {problem['detail']}{now}{how}"
    except (ValueError, KeyError, TypeError):
        return f"the API answered {answer.status_code}"
