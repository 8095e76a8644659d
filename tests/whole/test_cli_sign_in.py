"""`lockbox sign-in`: from an empty database to a first customer, with a passkey, a page and a terminal."""

import json
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from config.children import environment
from devstack.embedded import ServerAddresses
from devstack.stack import CHECKOUT
from harness.authenticator import Authenticator
from tests.http.portal import Form, PortalPage
from tests.mailbox import CODE
from tests.whole.conftest import RunningStack, stage_of, wait_until
from tests.whole.shell import lockbox

OLGA = ("bootstrap", "--name", "Olga Ortiz", "--email", "olga@vendor.example")
MAX = ("--name", "Max", "--email", "max@vendor.example", "--role", "manager")
ADMIN = ("--name", "Contoso", "--admin-name", "Tara Todd", "--admin-email", "tara@contoso.example")
SHOWN = re.compile(r"^ {4}([A-Z]{4}-[A-Z]{4})$", re.MULTILINE)
NOT_SIGNED_IN = "run `lockbox sign-in`, or set LOCKBOX_TOKEN to your token; LOCKBOX_URL is the API's address\n"
PATIENCE = 40


@pytest.fixture
def stage(template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with stage_of(template, tmp_path_factory.mktemp("logs"), names=("api",)) as stage:
        yield stage


@dataclass
class PasskeyVisitor:
    """A browser with an authenticator."""

    home: str

    def __post_init__(self) -> None:
        self.client = httpx.Client(
            base_url=self.home, follow_redirects=True, headers={"origin": self.home}, timeout=PATIENCE
        )
        self.authenticator = Authenticator(origin=self.home)

    def get(self, path: str) -> PortalPage:
        return PortalPage(self.client.get(path))

    def submit(self, page: PortalPage, action: str, **changes: str) -> PortalPage:
        """Fill in a form of a page and send it."""
        form: Form = page.form(action)
        return PortalPage(self.client.post(form.action, data=form.fields | changes))

    def add_passkey(self, account: PortalPage) -> None:
        asked = self.submit(account, "/account/passkeys/new", name="laptop")
        options = json.loads(asked.form("/account/passkeys").data["options"])
        self.submit(asked, "/account/passkeys", credential=self.authenticator.create(options))
        asked = self.submit(self.get("/sign-in"), "/sign-in/passkey")
        options = json.loads(asked.form("/answer").data["options"])
        self.submit(asked, "/answer", credential=self.authenticator.get(options))

    def answer(self, code: str, said: str) -> PortalPage:
        asks = self.submit(self.get("/device"), "/device", code=code)
        return self.submit(asks, "/device/answer", said=said)


@pytest.fixture
def olga(stage: RunningStack) -> Iterator[PasskeyVisitor]:
    """The browser of the first operator, who has entered the code that bootstrap printed, and added a passkey."""
    home = stage.plan.public_url
    variables = {"LOCKBOX_ENVIRONMENT": "test", "LOCKBOX_OWNER_DATABASE_URL": stage.urls.owner}
    made = lockbox(variables | {"LOCKBOX_PUBLIC_URL": home}, *OLGA)
    (code,), (page,) = CODE.findall(made.stderr), re.findall(r"/invitations/[0-9a-f-]+", made.stderr)
    visitor = PasskeyVisitor(home)
    visitor.add_passkey(visitor.submit(visitor.get(page), page, code=code))
    yield visitor
    visitor.client.close()


@dataclass
class WaitingSignIn:
    """A waiting `lockbox sign-in`."""

    process: "subprocess.Popen[str]"
    code: str

    def ended(self) -> tuple[int, str, str]:
        """Wait until the command ends; return its exit code and what it printed."""
        out, err = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, out, err


def begin(known: dict[str, str], errors: Path, *words: str) -> WaitingSignIn:
    """Start the sign-in, and return when the code is shown."""
    with errors.open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "sign-in", *words],
            env=environment({"COLUMNS": "200"} | known),
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
        )
    wait_until(lambda: SHOWN.search(errors.read_text()), "the code")
    return WaitingSignIn(process, SHOWN.findall(errors.read_text())[0])


@pytest.mark.far
def test_the_sign_in_commands_lead_from_an_empty_installation_to_a_first_customer(
    stage: RunningStack, olga: PasskeyVisitor, tmp_path: Path
) -> None:
    known = {"LOCKBOX_URL": olga.home, "XDG_STATE_HOME": str(tmp_path)}
    before = lockbox(known, "tenant", "add", "contoso", *ADMIN)

    signing = begin(known, tmp_path / "err")
    page = olga.answer(signing.code, "allow")
    code, out, _ = signing.ended()
    added = lockbox(known, "tenant", "add", "contoso", *ADMIN)
    invited = lockbox(
        known, "vendor", "invite", "--name", "Max", "--email", "max@vendor.example", "--role", "manager"
    )
    me = json.loads(lockbox(known, "me", "--output", "json").stdout)
    out_again = lockbox(known, "sign-out")
    after = lockbox(known, "me")

    assert (before.returncode, before.stderr) == (1, NOT_SIGNED_IN)
    assert "The terminal is signed in" in page.words
    assert (code, out) == (0, "Signed in for 15 minutes.\n")
    assert (added.returncode, added.stderr) == (0, "")
    assert (invited.returncode, invited.stderr) == (0, "")
    assert (me["name"], me["means"]) == ("Olga Ortiz", "passkey")
    assert out_again.stdout == "Signed out.\n"
    assert (after.returncode, after.stderr) == (1, NOT_SIGNED_IN)
    assert [row.slug for row in stage.rows("SELECT slug FROM tenants")] == ["contoso"]
    (row,) = stage.rows("SELECT revoked_at FROM tokens WHERE means IS NOT NULL")
    assert row.revoked_at is not None


@pytest.mark.far
def test_a_token_saved_by_the_cli_is_private_and_for_one_lockbox_address(
    stage: RunningStack, olga: PasskeyVisitor, tmp_path: Path
) -> None:
    known = {"LOCKBOX_URL": olga.home, "XDG_STATE_HOME": str(tmp_path)}
    signing = begin(known, tmp_path / "err")
    olga.answer(signing.code, "allow")
    signing.ended()
    kept = tmp_path / "lockbox" / "sign-in.json"
    mode = stat.S_IMODE(kept.stat().st_mode)
    token = json.loads(kept.read_text())["token"]

    elsewhere = lockbox(known | {"LOCKBOX_URL": olga.home.replace("localhost", "127.0.0.1")}, "me")
    kept.chmod(0o644)
    exposed = lockbox(known, "me")

    assert mode == 0o600
    assert elsewhere.stderr == NOT_SIGNED_IN
    assert exposed.stderr == f"others may read {kept}: remove it and sign in again\n"
    log = (stage.processes.logs / "api.log").read_text()
    assert token not in log
    assert signing.code not in log


@pytest.mark.far
def test_the_cli_prints_a_token_on_request_and_a_refused_sign_in_exits_1(
    olga: PasskeyVisitor, tmp_path: Path
) -> None:
    known = {"LOCKBOX_URL": olga.home, "XDG_STATE_HOME": str(tmp_path)}
    first = begin(known, tmp_path / "first", "--print")
    olga.answer(first.code, "allow")
    code, out, _ = first.ended()
    second = begin(known, tmp_path / "second")
    page = olga.answer(second.code, "refuse")
    ended = second.ended()

    acts = lockbox(known | {"LOCKBOX_TOKEN": out.strip()}, "vendor", "list")

    assert (code, acts.returncode) == (0, 0)
    assert not (tmp_path / "lockbox").exists()
    assert "The terminal was refused" in page.words
    assert (ended[0], ended[1]) == (1, "")
    assert (tmp_path / "second").read_text().endswith("it was refused on the page\n")
