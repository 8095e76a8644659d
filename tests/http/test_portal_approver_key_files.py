"""The page that verifies an export takes the customer's files of approvers' keys, as the command does."""

import html
import json
from dataclasses import dataclass

import pytest

from lockbox.audit.verifier import approver_keys
from lockbox.audit.verifier.approver_keys import LONGEST_FILE
from lockbox.database import Database
from lockbox.identity import keyring
from tests.http.portal import HOME, Browser, OpenPortal, PortalPage
from tests.http.test_signed_approvals import answer, asked
from tests.logs import public, sealed
from tests.passkey_approvals import DEMANDED, enrol

KEYS = f"{public().text}\n{keyring.ephemeral().public.text}"
INTACT = "Intact as signed by the vendor; not compared with a checkpoint of yours."


@dataclass(frozen=True)
class SignedExport:
    """An auditor's browser, an export with an approval that a passkey has signed, and the file of approvers' keys."""

    browser: Browser
    export: bytes
    keys: bytes

    def verify(self, *files: bytes) -> PortalPage:
        """Send the export to be verified, with files of approvers' keys."""
        form = self.browser.get("/audit-log/verify").form("/audit-log/verify")
        given = [("approver_keys", ("keys.json", file, "application/json")) for file in files]
        export = ("export", ("audit.ndjson", self.export, "application/x-ndjson"))
        sent = {"csrf": form.fields["csrf"], "keys": KEYS, "note": ""}
        ours = {"origin": HOME, "sec-fetch-site": "same-origin"}
        return PortalPage(
            self.browser.call("POST", "/audit-log/verify", data=sent, files=[export, *given], headers=ours)
        )


@pytest.fixture(scope="module")
def signed(open_portal: OpenPortal, worker: Database) -> SignedExport:
    """The export and keys of a tenant whose approver has signed with a passkey."""
    portal = open_portal(DEMANDED)
    authenticator, request = enrol(portal.world, "ann"), portal.world.submit()
    browser = portal.by_passkey("ann")
    answer(browser, asked(browser, request), authenticator)
    sealed(worker)
    keys = portal.by_mail("tara").call("GET", f"/tenants/{portal.world.tenant.slug}/approver-keys/file").content
    auditor = portal.by_mail("aude")
    return SignedExport(auditor, auditor.call("GET", "/audit-log/export").content, keys)


def test_passkey_signatures_are_verified_with_the_chosen_key_files(signed: SignedExport) -> None:
    without, checked = signed.verify(), signed.verify(signed.keys)

    assert (without.status, INTACT in without.words, "not checked without" in without.words) == (200, True, True)
    assert (checked.status, INTACT in checked.words) == (200, True)
    assert "Signed by a passkey of your approvers: 1 approval" in checked.words
    assert "not checked without" not in checked.words


def test_an_empty_field_for_a_key_file_is_ignored(signed: SignedExport) -> None:
    assert "not checked without" in signed.verify(b"").words


def test_an_export_counts_as_tampered_if_no_given_key_file_has_the_key_of_a_signature(
    signed: SignedExport,
) -> None:
    none = json.dumps(json.loads(signed.keys) | {"keys": []}).encode()

    missing, older = signed.verify(none), signed.verify(none, signed.keys)

    assert "Tampered." in missing.words
    assert "is none of this approver's in the files of keys that you gave" in html.unescape(missing.words)
    assert INTACT in older.words


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([b"{"], "the file of approvers' keys is no JSON"),
        ([b"\xff\xfe"], "the file of approvers' keys is no JSON"),
        ([b"{}"], f"has the format {approver_keys.KEY_FILE_FORMAT}"),
        ([b" " * (LONGEST_FILE + 1)], "A file of approvers' keys has at most 1 MB"),
        ([b"{}"] * 6, "Choose at most 5 files of approvers' keys"),
    ],
)
def test_an_invalid_approver_key_file_is_refused(signed: SignedExport, files: list[bytes], says: str) -> None:
    page = signed.verify(*files)

    assert (page.status, says in html.unescape(page.words)) == (422, True), page.words
    assert page.form("/audit-log/verify").fields["keys"].split() == KEYS.split()
