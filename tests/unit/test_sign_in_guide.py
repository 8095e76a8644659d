"""docs/how-to/sign-in.md: its settings are valid as printed, and none is left out."""

import json
import re
from pathlib import Path
from textwrap import dedent

from api.portal.sign_in.oidc import CALLBACK
from catalogue.issuers import IdentityProvider
from config.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "sign-in.md").read_text()


def test_the_identity_providers_shown_in_the_sign_in_guide_are_valid_settings() -> None:
    (shown,) = re.findall(r"^ *```json\n(.*?)^ *```$", PAGE, re.DOTALL | re.MULTILINE)

    vendor, customer = Settings(environment="test", issuers=json.loads(dedent(shown))).issuers

    assert (vendor.tenant, customer.tenant) == (None, "contoso")
    assert not vendor.is_plain_http


def test_the_sign_in_guide_explains_every_field_of_a_provider() -> None:
    rows = re.findall(r"^ *\| (`[a-z_`, ]+`) \|", PAGE, re.MULTILINE)

    assert set(re.findall(r"\w+", " ".join(rows))) == IdentityProvider.model_fields.keys()


def test_the_redirect_address_in_the_sign_in_guide_is_correct() -> None:
    assert f"https://lockbox.vendor.example{CALLBACK}" in PAGE
