"""Checkpoints sent out: hourly to webhooks, and in a digest to admins and auditors, each once."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.audit_group import app as auditing
from harness.clocks import ShiftedClock
from harness.people import World
from harness.stage import unbound
from lockbox.audit.log import checkpoint
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier.approval_checks import NAME
from lockbox.audit.verifier.verify import CANNOT_TELL, GOOD
from lockbox.database import Database
from lockbox.identity import keyring
from lockbox.notifications import checkpoint_digest
from lockbox.notifications.senders.smtp import compose
from lockbox.requests.lifecycle import Action
from tests.database.postbag import SENDER, Postbag, open_notifications
from tests.database.scenes import read, write
from tests.database.test_exports import exported
from tests.logs import OTHER_KEY, public, sealed

DAY = timedelta(days=1)
KEYS = {public().id: public()}
OPEN = "SELECT id FROM notifications WHERE closed_at IS NULL AND checkpoint_id IS NOT NULL ORDER BY id"


def told(db: Database, digest_every: timedelta = DAY) -> list[tuple[str, int]]:
    return list(checkpoint_digest.queue_due(db, digest_every))


def test_each_hourly_checkpoint_is_sent_to_a_webhook_once(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    post = Postbag()
    post.endpoint(world, "https://tenant.example/audit", tenant_id=world.tenant.id)
    world.fresh()
    sealed(sender)
    told(sender)
    told(sender)
    later.shift = timedelta(minutes=61)
    sealed(sender)
    told(sender)

    post.deliver(sender, [row.id for row in read(unbound(sender), OPEN)])

    bodies = [json.loads(hook.body) for hook in post.hooks.sent]
    assert [body["type"] for body in bodies] == ["audit.checkpoint"] * 2
    for body in bodies:
        said, _ = checkpoint.verify(body["data"]["changes"]["checkpoint"], KEYS)
        assert said.origin.endswith(str(world.tenant.id))


@pytest.mark.far
def test_sending_a_checkpoint_adds_no_event_to_a_log_without_new_events(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    post.endpoint(world, "https://tenant.example/audit", tenant_id=world.tenant.id)
    world.fresh()
    post.deliver(sender, open_notifications(sender))
    sizes = []
    for hours in range(26):
        later.shift = timedelta(minutes=61 * hours)
        sealed(sender)
        told(sender)
        post.deliver(sender, open_notifications(sender))
        sizes.append(read(unbound(sender), "SELECT size FROM logs WHERE tenant_id IS NOT NULL")[0].size)

    assert len([hook for hook in post.hooks.sent if b"audit.checkpoint" in hook.body]) == 26
    assert [mail for mail in post.mail.sent if "checkpoint" in mail.text]
    assert len(set(sizes)) == 1


def test_a_webhook_not_subscribed_to_checkpoints_gets_no_checkpoint(world: World, worker: Database) -> None:
    post = Postbag()
    post.endpoint(world, "https://tenant.example/audit", tenant_id=world.tenant.id)
    write(unbound(worker), "UPDATE endpoints SET event_types = '{request.pending}'")
    world.fresh()
    sealed(worker)

    told(worker)

    assert not read(unbound(worker), OPEN)


def test_admins_and_auditors_are_mailed_a_verifiable_checkpoint_daily(
    world: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    world.fresh()
    sealed(sender)
    assert told(sender) == [("webhooks", 1)]
    later.shift = timedelta(hours=25)
    sealed(sender)
    told(sender)
    told(sender)

    post.deliver(sender, [row.id for row in read(unbound(sender), OPEN)])

    assert sorted(mail.to_name for mail in post.mail.sent) == ["Aude", "Tara"]
    text = post.mail.sent[0].text
    start = text.index("lockbox.test/audit/")
    note = text[start : text.index("Key: ")].rstrip("\n") + "\n"
    assert checkpoint.verify(note, KEYS)[0].size == 1
    assert VerifierKey.read(text.split("Key: ")[1].split("\n")[0]) == public()
    assert public().fingerprint in text


@pytest.mark.far
def test_a_saved_digest_mail_suffices_to_verify_an_export_that_contains_approvals(
    world: World, sender: Database, later: ShiftedClock, post: Postbag, tmp_path: Path
) -> None:
    world.act("ann", Action.APPROVE, world.fresh().id)
    later.shift = timedelta(hours=-25)
    sealed(sender)
    told(sender)
    later.shift = timedelta(0)
    sealed(sender)
    told(sender)
    forged = VerifierKey(NAME, OTHER_KEY.public_key().public_bytes_raw()).text
    write(unbound(sender), "INSERT INTO audit_keys VALUES (:key, 'approval', now())", key=forged)
    (tmp_path / "export.ndjson").write_bytes(exported(world))
    verify = ["verify", str(tmp_path / "export.ndjson"), "--checkpoint", str(tmp_path / "digest.eml")]

    def verified() -> Result:
        post.mail.sent.clear()
        write(
            unbound(sender),
            "UPDATE notifications SET closed_at = NULL, outcome = NULL WHERE template = 'audit_digest'",
        )
        post.deliver(sender, [row.id for row in read(unbound(sender), OPEN)])
        (tmp_path / "digest.eml").write_bytes(compose(post.mail.sent[0], SENDER).content)
        return CliRunner().invoke(auditing, [*verify, "--memory", str(tmp_path / str(len(post.approval_keys)))])

    unsure = verified()
    post.approval_keys = (keyring.ephemeral().public.text,)
    good = verified()

    assert (unsure.exit_code, "key of approvals" in unsure.output) == (CANNOT_TELL, True)
    assert (good.exit_code, "Intact, continues your checkpoint" in good.output) == (GOOD, True), good.output
    assert "signed by the vendor's key of approvals: 1 approval" in good.output
    assert forged not in post.mail.sent[0].text + post.mail.sent[0].html


@pytest.mark.parametrize("digest_every", [timedelta(0)])
def test_no_digest_is_mailed_to_a_tenant_that_turned_digests_off(
    world: World, sender: Database, later: ShiftedClock, digest_every: timedelta
) -> None:
    world.fresh()
    sealed(sender)
    later.shift = timedelta(days=9)

    told(sender, digest_every)

    assert not read(unbound(sender), OPEN)
