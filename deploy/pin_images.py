"""Write beside the tag of each image of others the digest that its registry has for it: `make pin-images`.

A digest is computed from the index that the registry served, never taken over from a header; where one cannot be had,
no file is changed.
"""

import hashlib
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import httpx

FILES = ("Dockerfile", "docker-compose.yml")
OURS = "lockbox"
IMAGE = re.compile(
    r"^(?P<before>FROM |[ ]+image: )(?P<name>[a-z0-9./_-]+):(?P<tag>[\w.-]+)(?:@sha256:[0-9a-f]{64})?(?=\s|$)",
    re.MULTILINE,
)
HUB = "https://registry-1.docker.io"
INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
LOOPBACK = "127.0.0.1"
SECONDS = 30


class NoDigest(Exception):  # noqa: N818 - it names what is missing
    """No digest can be had for an image; the message says why."""


def pin(files: Iterable[Path], hub: str = HUB) -> dict[str, str]:
    """Write the digests into these files, and return them by image.

    Raises:
        NoDigest: a registry has no index for a tag; then nothing is written.
    """
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    images = sorted({image for text in texts.values() for image in images_in(text)})
    with httpx.Client(timeout=SECONDS, follow_redirects=False) as client:
        digests = {image: _digest(client, image, hub) for image in images}
    for file, text in texts.items():
        file.write_text(IMAGE.sub(lambda found: _pinned(found, digests), text), encoding="utf-8")
    return digests


def images_in(text: str) -> list[str]:
    """Return the images of others that a text names, each with its tag."""
    return [f"{found['name']}:{found['tag']}" for found in IMAGE.finditer(text) if found["name"] != OURS]


def _pinned(found: re.Match[str], digests: dict[str, str]) -> str:
    image = f"{found['name']}:{found['tag']}"
    return f"{found['before']}{image}@{digests[image]}" if image in digests else found.group()


def _digest(client: httpx.Client, image: str, hub: str) -> str:
    name, _, tag = image.partition(":")
    first, _, rest = name.partition("/")
    if "." in first:
        registry, path = f"https://{first}", rest
    else:
        registry, path = hub, name if rest else f"library/{name}"
    url = f"{registry}/v2/{path}/manifests/{tag}"
    accept = {"accept": ", ".join(INDEXES)}
    try:
        answer = client.get(url, headers=accept)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            answer = client.get(url, headers=accept | {"authorization": f"Bearer {_token(client, answer)}"})
    except httpx.HTTPError as error:
        raise NoDigest(f"{image}: {registry} cannot be reached: {error}") from None
    if answer.status_code != httpx.codes.OK:
        raise NoDigest(f"{image}: {registry} answers {answer.status_code}")
    if answer.headers.get("content-type") not in INDEXES:
        raise NoDigest(f"{image}: {registry} has no index of platforms for this tag")
    digest = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
    if answer.headers.get("docker-content-digest", digest) != digest:
        raise NoDigest(f"{image}: {registry} served something else than the digest that it names")
    return digest


def _token(client: httpx.Client, refused: httpx.Response) -> str:
    """Return what lets anybody read, from where the registry says that it is had."""
    asked = dict(re.findall(r'(\w+)="([^"]*)"', refused.headers.get("www-authenticate", "")))
    realm = urlsplit(asked.pop("realm", ""))
    if realm.scheme != "https" and realm.hostname != LOOPBACK:
        raise NoDigest(f"{refused.url}: needs a sign-in that is not offered by https")
    answer = client.get(realm.geturl(), params=asked)
    token = answer.json().get("token") if answer.status_code == httpx.codes.OK else None
    if not isinstance(token, str):
        raise NoDigest(f"{refused.url}: {realm.hostname} gives no token")
    return token


def main() -> None:
    """Pin the images of this checkout."""
    checkout = Path(__file__).parent.parent
    try:
        digests = pin([checkout / name for name in FILES])
    except NoDigest as refused:
        sys.exit(f"lockbox: {refused}. Nothing was changed")
    for image, digest in digests.items():
        sys.stdout.write(f"{image}@{digest}\n")


if __name__ == "__main__":
    main()
