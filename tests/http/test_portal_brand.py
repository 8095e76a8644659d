"""The vendor's name, colour and logo on the pages, where the settings name them."""

import re
from pathlib import Path

from api.portal import pages
from tests.http.portal import SETTINGS, OpenPortal, Portal

PICTURE = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><rect width="1" height="1"/></svg>'
LOOK = '<a class="brand" href="/">{logo}Fabrikam &amp; Sons <span class="product">Lockbox</span></a>'


def branded(open_portal: OpenPortal, folder: Path) -> Portal:
    """Return a portal of a vendor with its own brand."""
    (folder / "logo.svg").write_bytes(PICTURE)
    look = {"vendor_name": "Fabrikam & Sons", "vendor_colour": "#7a1fa2", "vendor_logo": folder / "logo.svg"}
    return open_portal(settings=SETTINGS.model_copy(update=look))


def test_portal_pages_have_the_vendors_name_colour_and_logo(open_portal: OpenPortal, tmp_path: Path) -> None:
    browser = branded(open_portal, tmp_path).browser()

    page = browser.get("/sign-in")
    sheet, logo = (browser.call("GET", f"/static/{name}") for name in ("brand.css", "logo"))

    assert LOOK.format(logo='<img src="/static/logo" alt="" height="28">') in page.text
    styles = re.findall(r'<link rel="stylesheet" href="/static/([^"]+)"', page.text)
    assert styles[1:4] == ["tokens.css", "brand.css", "portal.css"]
    assert "--brand: #7a1fa2; --link: #7a1fa2;" in sheet.text
    assert (sheet.headers["content-type"], logo.headers["content-type"]) == (
        "text/css; charset=utf-8",
        "image/svg+xml",
    )
    assert logo.content == PICTURE
    for answer in (sheet, logo):
        assert answer.headers["content-security-policy"] == pages.POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "public, max-age=3600"


def test_without_branding_portal_pages_use_the_lockbox_brand(open_portal: OpenPortal) -> None:
    browser = open_portal().browser()

    page = browser.get("/sign-in")

    assert '<span class="mark"></span>Lockbox</a>' in page.text
    assert "brand.css" not in page.text
    assert [browser.call("GET", f"/static/{name}").status_code for name in ("brand.css", "logo")] == [404, 404]
