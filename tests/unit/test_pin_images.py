"""Digests of images: they come from a registry, or no file is changed."""

import hashlib
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pin_images import FILES, INDEXES, NoDigest, images_in, pin
from ruamel.yaml import YAML

from devstack.stack import CHECKOUT

DOCKERFILE = """FROM python:3.13-slim AS build
RUN echo FROM
FROM python:3.13-slim
"""
COMPOSE = """services:
  postgres:
    image: postgres:18
  mailpit:
    image: axllent/mailpit:v1.31.1 # caught
  api:
    image: lockbox:local
"""
TOKEN = "a-token"


@dataclass
class Registry:
    """A registry on loopback; `served` has the content for each path of a manifest."""

    served: dict[str, bytes] = field(default_factory=dict)
    kind: str = INDEXES[0]
    names: str | None = None
    """The digest that its header names; by default the right one."""
    wants_token: bool = True
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def answer(self, path: str, authorization: str | None) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(path)
        where = urlsplit(path)
        if where.path == "/token":
            assert parse_qs(where.query) == {"service": ["here"], "scope": ["pull"]}
            return 200, {}, f'{{"token": "{TOKEN}"}}'.encode()
        if self.wants_token and authorization != f"Bearer {TOKEN}":
            return 401, {"www-authenticate": f'Bearer realm="{self.url}/token",service="here",scope="pull"'}, b""
        body = self.served.get(where.path)
        if body is None:
            return 404, {}, b"{}"
        named = self.names or f"sha256:{hashlib.sha256(body).hexdigest()}"
        return 200, {"content-type": self.kind, "docker-content-digest": named}, body


@pytest.fixture
def registry() -> Iterator[Registry]:
    made = Registry()

    class RegistryHandler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = made.answer(self.path, self.headers["authorization"])
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), RegistryHandler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    for path in ("library/python/manifests/3.13-slim", "library/postgres/manifests/18"):
        made.served[f"/v2/{path}"] = path.encode()
    made.served["/v2/axllent/mailpit/manifests/v1.31.1"] = b"mailpit"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for name, text in zip(FILES, (DOCKERFILE, COMPOSE), strict=True):
        (tmp_path / name).write_text(text)
    return [tmp_path / name for name in FILES]


def sha(body: bytes) -> str:
    return f"@sha256:{hashlib.sha256(body).hexdigest()}"


@pytest.mark.far
def test_each_foreign_container_image_gets_the_digest_the_registry_serves(
    registry: Registry, files: list[Path]
) -> None:
    python = sha(registry.served["/v2/library/python/manifests/3.13-slim"])
    postgres = sha(registry.served["/v2/library/postgres/manifests/18"])

    pin(files, registry.url)

    assert files[0].read_text() == DOCKERFILE.replace("3.13-slim", f"3.13-slim{python}")
    assert files[1].read_text() == COMPOSE.replace("postgres:18", f"postgres:18{postgres}").replace(
        "v1.31.1", f"v1.31.1{sha(b'mailpit')}"
    )


@pytest.mark.far
def test_the_digest_of_a_new_image_release_replaces_the_old_digest(registry: Registry, files: list[Path]) -> None:
    pin(files, registry.url)
    before = [file.read_text() for file in files]
    pin(files, registry.url)
    assert [file.read_text() for file in files] == before

    registry.served["/v2/library/postgres/manifests/18"] = b"another"
    pin(files, registry.url)

    assert f"image: postgres:18{sha(b'another')}\n" in files[1].read_text()
    assert files[0].read_text() == before[0]


@pytest.mark.far
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"names": "sha256:" + "0" * 64}, "something else"),
        ({"kind": "application/vnd.oci.image.manifest.v1+json"}, "no index"),
        ({"served": {}}, "answers 404"),
    ],
)
def test_without_a_valid_image_digest_no_file_is_changed(
    registry: Registry, files: list[Path], change: dict[str, object], why: str
) -> None:
    for name, value in change.items():
        setattr(registry, name, value)

    with pytest.raises(NoDigest, match=why):
        pin(files, registry.url)

    assert [file.read_text() for file in files] == [DOCKERFILE, COMPOSE]


def test_without_a_container_registry_no_file_is_changed(files: list[Path]) -> None:
    with pytest.raises(NoDigest, match="cannot be reached"):
        pin(files, "http://127.0.0.1:1")

    assert [file.read_text() for file in files] == [DOCKERFILE, COMPOSE]


def test_every_container_image_named_in_the_repository_is_found() -> None:
    compose = YAML(typ="safe", pure=True).load((CHECKOUT / "docker-compose.yml").read_text())
    named = {one["image"].partition("@")[0] for one in compose["services"].values()} - {"lockbox:local"}
    built_on = re.findall(r"^FROM ([^\s@]+)", (CHECKOUT / "Dockerfile").read_text(), re.MULTILINE)

    assert set(images_in((CHECKOUT / "docker-compose.yml").read_text())) == named
    assert images_in((CHECKOUT / "Dockerfile").read_text()) == built_on
    assert len(built_on) == 2
