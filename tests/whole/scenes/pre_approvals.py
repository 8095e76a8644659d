"""Scenes of pre-approvals: proposed by an admin, approved by approvers, and revoked."""

from tests.whole.forms import Book
from tests.whole.scenes import scene
from tests.whole.scenes.tenant_admin import local

ALL = "mailbox:*@contoso.example"


@scene
def an_admin_proposes_what_approvers_approve_and_revoke(book: Book) -> None:
    world = book.stage.world(approval_window=900, quorum=2)
    path = f"/tenants/{world.tenant.slug}/pre-approvals"
    page = book.at(path, world, "tara")
    propose = page.get_by_role("button", name="Propose")

    book.unsendable(propose, page.get_by_label("Resources"))
    page.get_by_label("Resources").fill("mailbox:*")
    page.get_by_label("Until").fill(local(book, days=7))
    page.get_by_label("Why").fill("Her team is on call this week")
    book.wrongly(propose, "Name at least a part of the id")
    page.get_by_label("Resources").fill(ALL)
    page.get_by_label("Until").fill(local(book, days=-1))
    book.wrongly(propose, "in the future")
    page.get_by_label("Until").fill(local(book, days=7))
    book.rightly(propose, "Needs 2 more approvals")
    for name, says in (("ann", "Needs 1 more approval"), ("amir", "in force")):
        of = book.at(path, world, name)
        book.rightly(of.get_by_role("button", name=f"Approve {ALL}"), says)
    opened = world.submit(access_window=900)
    book.rightly(of.get_by_role("button", name=f"Revoke {ALL}"), "revoked")

    assert book.stage.state(opened.id) == "revoked"
