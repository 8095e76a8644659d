"""Headers of requests and answers: one Host, and no guessing of types."""

import asyncio

from api.app import make_app
from harness.people import SETTINGS
from tests.each import each
from tests.http.door import Door
from tests.http.test_sockets import LIVENESS_SECONDS, serving

PATHS = [
    "/livez",
    "/readyz",
    "/v1/me",
    "/v1/requests",
    "/v1/nowhere",
    "/nowhere",
    "/metrics",
    "/v1/access",
    "/sign-in",
]


@each("path", PATHS)
@each("who", ["erin", "gate", None])
@each("method", ["GET", "HEAD", "POST"])
def test_every_http_answer_forbids_type_sniffing(door: Door, method: str, who: str | None, path: str) -> None:
    assert door.call(who, method, path).headers.get_list("x-content-type-options") == ["nosniff"]


@each(
    ("hosts", "status"),
    [
        ([], 400),
        (["lockbox.test", "lockbox.test"], 400),
        (["lockbox.test", "evil.example"], 400),
        (["lockbox.test"], 200),
    ],
)
@each("version", ["1.1", "1.0"])
def test_an_http_request_must_name_exactly_one_host(door: Door, hosts: list[str], status: int, version: str) -> None:
    lines = "".join(f"Host: {host}\r\n" for host in hosts)

    async def said() -> bytes:
        async with serving(make_app(SETTINGS, door.db)) as connect:
            reader, writer = await connect()
            writer.write(f"GET /livez HTTP/{version}\r\n{lines}\r\n".encode())
            return await reader.readuntil(b"\r\n\r\n")

    head = door.runner.run(asyncio.wait_for(said(), LIVENESS_SECONDS))

    assert head.split()[1] == b"%d" % status
    assert b"x-content-type-options: nosniff" in head
