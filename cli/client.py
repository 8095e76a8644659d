"""Calls to the API, and refusals told in a terminal's words."""

from collections.abc import Mapping
from typing import Any

import httpx
import typer
from rich.console import Console

from config.client import load_client
from config.settings import UnsafeSettings

SECONDS = 15
ERRORS = Console(stderr=True)


def call(
    method: str,
    path: str,
    *,
    params: Mapping[str, Any] | None = None,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> Any:  # noqa: ANN401 - JSON
    """Call the API and return its JSON; end with a line on stderr and code 1 when it says no."""
    try:
        known = load_client()
    except UnsafeSettings as unset:
        raise stop(str(unset)) from None
    given = {name: value for name, value in (params or {}).items() if value is not None}
    try:
        answer = httpx.request(
            method,
            f"{known.url.rstrip('/')}{path}",
            params=given,
            json=body,
            headers={"authorization": f"Bearer {known.token.get_secret_value()}", **(headers or {})},
            timeout=SECONDS,
        )
    except httpx.HTTPError as error:
        raise stop(f"{known.url} does not answer ({type(error).__name__}): is LOCKBOX_URL right?") from None
    if answer.is_success:
        return answer.json()
    raise stop(_told(answer))


def stop(line: str) -> typer.Exit:
    """Print why it ends, and return what to raise."""
    ERRORS.print(line, style="red", markup=False)
    return typer.Exit(1)


def _told(answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        now = f" (it is {problem['current_state']} now)" if problem.get("current_state") else ""
        return f"{problem['code']}: {problem['detail']}{now}"
    except (ValueError, KeyError, TypeError):
        return f"the API answered {answer.status_code}"
