"""Every form of every page in a real browser: its users send it, and invalid input is refused."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devstack.embedded import ServerAddresses
from harness.people import World
from lockbox.requests.lifecycle import Action
from tests.http.test_portal_routes import MATRIX
from tests.oidc_issuer import CLIENT_SECRET, local_issuer
from tests.whole import people
from tests.whole.conftest import RunningStack, stage_of
from tests.whole.forms import Book
from tests.whole.people import desk_of
from tests.whole.post import address_of
from tests.whole.scenes import (
    SCENES,
    Scene,
    audit_log,
    own,
    pre_approvals,
    requests,
    sign_in,
    tenant_admin,
    tenant_data,
)
from tests.whole.warm import WarmProcesses

pytestmark = [
    pytest.mark.far,
    pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING),
    pytest.mark.timeout(600),
]

PLAYED = {"erin": "engineer", "max": "manager", "olga": "operator", "vera": "vendor_auditor"}
PLAYED |= {"tara": "tenant_admin", "ann": "approver", "aude": "auditor"}
WALKERS = (*PLAYED, "amir")
SEARCHES = {("get", "/docs")}
"""The forms that find nothing where there is nothing, and refuse nothing."""
COMMENTS_ALONE = {
    ("post", "/requests/{id}/endorse"),
    ("post", "/requests/{id}/complete"),
    ("post", "/requests/{id}/revoke"),
    ("post", "/inbox"),
    ("post", "/tenants/{slug}/pre-approvals/{id}/approve"),
    ("post", "/tenants/{slug}/pre-approvals/{id}/revoke"),
}
ANY_ID = re.compile(r"\{\w+\}")
ROUTES = {ANY_ID.sub("{}", route.removeprefix("POST ")) for route in MATRIX if route.startswith("POST ")}
"""Where forms are sent to, by the pages' routes: a form that stands on no page which anybody reached is one too."""
SERVICE = "the sign-in of the vendor"
MODULES = (requests, sign_in, tenant_admin, own, audit_log, pre_approvals, tenant_data)


def playground(stage: RunningStack, world: World, folder: Path) -> Path:
    parts = [
        {
            "key": key,
            "id": str(world.people[key].person_id),
            "name": world.people[key].name,
            "email": address_of(stage, world, key),
            "role": role,
            "token": world.tokens[key],
        }
        for key, role in PLAYED.items()
    ]
    file = folder / "playground.json"
    file.write_text(json.dumps({"tenant": "contoso", "maildir": str(stage.urls.maildir), "people": parts}))
    return file


@pytest.fixture(scope="module")
def world() -> list[World]:
    """A list for the world whose pages are crawled; empty until `book` has made it."""
    return []


@pytest.fixture(scope="module")
def book(template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory, world: list[World]) -> Iterator[Book]:
    """One stack for all scenes, with a playground and an identity provider of the vendor."""
    logs = tmp_path_factory.mktemp("logs")
    with stage_of(template, logs, names=()) as found, local_issuer() as issuer:
        world.append(furnished(found))
        extra = {
            "LOCKBOX_SHUTDOWN_SECONDS": "1",
            "LOCKBOX_SIGN_INS_PER_ADDRESS": "500",
            "LOCKBOX_WEBHOOKS_ALLOW_HTTP": "true",
            "LOCKBOX_ISSUERS": json.dumps(
                [vars(issuer.configured(title=SERVICE)) | {"client_secret": CLIENT_SECRET}]
            ),
        }
        plan = replace(found.plan, playground=playground(found, world[0], logs))
        processes = WarmProcesses(plan, logs, extra)
        try:
            for name in ("api", "worker", "notifications"):
                processes.start(name)
            processes.wait_until_ready()
            with desk_of(found) as desk:
                yield Book(found, desk, issuer, world[0])
        finally:
            processes.stop()


def furnished(stage: RunningStack) -> World:
    world = stage.world(approval_window=3600, review_window=3600, quorum=2)
    for decided in ((Action.DENY,), (Action.APPROVE,), (Action.APPROVE, Action.APPROVE), ()):
        request = world.fresh()
        for who, action in zip(("ann", "abe"), decided, strict=False):
            world.act(who, action, request.id)
    return world


@pytest.mark.parametrize("play", SCENES, ids=lambda play: play.__name__)
def test_every_form_is_submitted_in_the_browser_with_valid_and_with_invalid_input(book: Book, play: Scene) -> None:
    book.play(play)


def test_no_portal_form_is_left_out_of_the_browser_test(book: Book, world: list[World]) -> None:
    for play in SCENES:
        book.play(play)

    for name in WALKERS:
        book.crawl(book.at("/", world[0], name))
    book.crawl(book.at("/play"))
    unsent = set(book.seen) - book.sent
    never_refused = {form for form, is_written_in in book.seen.items() if is_written_in} - book.refused

    assert unsent == set()
    assert ROUTES - {ANY_ID.sub("{}", path) for method, path in book.sent if method == "post"} == set()
    assert never_refused - COMMENTS_ALONE - SEARCHES == set()
    assert book.dead == []
