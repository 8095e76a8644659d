"""The API reference: each operation, schema and problem has a place, and a search finds it."""

import asyncio
import re

from httpx import ASGITransport, AsyncClient, Response

from api.portal import pages
from api.portal.reference import marked, reference
from tests.http.test_openapi import DOCUMENT, OPERATIONS, SCHEMAS
from tests.http.test_routes import APP

SECTIONS = tuple(reference().sections)


def get(*addresses: str) -> list[Response]:
    """Return the pages that an anonymous reader gets, without a query to the database."""

    async def fetch() -> list[Response]:
        transport = ASGITransport(app=APP)
        async with AsyncClient(transport=transport, base_url="http://docs.test") as client:
            return [await client.get(address, headers={"accept": "text/html"}) for address in addresses]

    return asyncio.run(fetch())


def test_each_operation_and_webhook_has_one_place_in_the_reference_pages() -> None:
    answers = get(*(f"/docs/{section}" for section in SECTIONS))
    shown = {section: answer.text for section, answer in zip(SECTIONS, answers, strict=True)}
    calls = [said["post"]["operationId"] for said in DOCUMENT["webhooks"].values()]

    for said in (*(said for _, _, said in OPERATIONS), *(one["post"] for one in DOCUMENT["webhooks"].values())):
        assert shown[said["tags"][0]].count(f' id="{said["operationId"]}"') == 1
    assert len(re.findall(r'<article class="operation"', "".join(shown.values()))) == len(OPERATIONS) + len(calls)


def test_each_link_of_the_reference_pages_resolves() -> None:
    addresses = ["/docs", "/docs/problems", "/docs/schemas", *(f"/docs/{section}" for section in SECTIONS)]
    addresses += [f"/docs/schemas/{name}" for name in SCHEMAS]
    shown = {address: answer.text for address, answer in zip(addresses, get(*addresses), strict=True)}

    for address, text in shown.items():
        names = re.findall(r' id="([^"]+)"', text)
        assert len(names) == len(set(names)), address
        for to, _, place in (link.partition("#") for link in re.findall(r'href="(/docs[^"?]*)"', text)):
            assert to in shown, (address, to)
            assert not place or f' id="{place}"' in shown[to], (address, to, place)


def test_a_search_of_the_reference_finds_operations_schemas_and_problems_by_any_word() -> None:
    searches = ("approve_request", "Retry%20%20LIMIT", "%3Cb%3Ezebra%3C/b%3E")
    by_name, by_words, nothing = (answer.text for answer in get(*(f"/docs?q={text}" for text in searches)))

    assert "/docs/requests#approve_request" in by_name
    assert "/docs/problems#too-many" in by_words
    assert "0 found for “&lt;b&gt;zebra&lt;/b&gt;”" in nothing
    assert "<b>zebra</b>" not in nothing


def test_the_reference_pages_run_only_the_portals_scripts() -> None:
    (answer,) = get("/docs/webhooks")

    assert answer.headers["content-security-policy"] == pages.POLICY
    assert set(re.findall(r'<script src="([^"]+)"', answer.text)) <= {f"/static/{name}" for name in OURS}
    assert "<style" not in answer.text
    assert " style=" not in answer.text


OURS = ("htmx-4.0.1.min.js", "portal.js")


def test_an_unknown_reference_page_is_not_found() -> None:
    assert [one.status_code for one in get("/docs/nope", "/docs/schemas/Nope", "/docs/schemas/")] == [404] * 3


def test_text_of_the_openapi_document_is_escaped_on_reference_pages() -> None:
    assert marked("<i> `a<b`\n\n**x**") == "<p>&lt;i&gt; <code>a&lt;b</code></p><p><b>x</b></p>"
