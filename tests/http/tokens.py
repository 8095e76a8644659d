"""Helpers that make and show tokens over HTTP."""

from typing import Any

from httpx import Response

from tests.http.door import Door


def asked(door: Door, who: str, **body: Any) -> Response:
    return door.call(who, "POST", "/v1/tokens", json={"name": "laptop"} | body)


def made(door: Door, who: str = "erin", **body: Any) -> dict[str, Any]:
    """Make a token for a person, and return the answer."""
    answer = asked(door, who, **body)
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


def by(token: str | dict[str, Any], door: Door, method: str, path: str, **parts: Any) -> Response:
    text = token if isinstance(token, str) else token["token"]
    headers = parts.pop("headers", {}) | {"authorization": f"Bearer {text}"}
    return door.call(None, method, path, headers=headers, **parts)


def works(token: str | dict[str, Any], door: Door) -> bool:
    answer = by(token, door, "GET", "/v1/me")
    assert answer.status_code in {200, 401}
    return answer.status_code == 200


def listed(door: Door, who: str) -> dict[str, dict[str, Any]]:
    return {item["id"]: item for item in door.get(who, "/v1/tokens").json()["items"]}
