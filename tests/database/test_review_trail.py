"""What the trail says of itself, where a row beside the sealed body says something else."""

from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from config.settings import Plan
from lockbox.audit import sealing
from lockbox.audit.checkpoint import VerifierKey
from lockbox.database import Database
from lockbox.tenancy import tenants
from lockbox.tenancy.tenants import Founding
from tests.builders import ShiftedClock, World, unbound
from tests.database.postbag import Postbag, open_notices
from tests.database.scenes import read
from tests.database.tenancy import manages
from tests.database.test_checkpoint_notices import told
from tests.database.test_exports import freely
from tests.logs import public, sealed


def test_the_key_that_a_digest_names_is_not_one_that_the_owner_of_the_database_chose(
    world: World, sender: Database, superuser: Engine, later: ShiftedClock, post: Postbag
) -> None:
    world.fresh()
    sealed(sender)
    forged = VerifierKey("lockbox.test", Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    freely(superuser, f"INSERT INTO audit_keys VALUES ('{forged.text}', 'log', now() + interval '1 second')")
    later.shift = timedelta(hours=25)
    told(sender)

    post.deliver(sender, open_notices(sender))

    assert not [mail.subject for mail in post.mail.sent if forged.fingerprint in mail.text]


def test_the_fingerprint_stands_in_the_first_admins_invitation(world: World, sender: Database, post: Postbag) -> None:
    world.fresh()
    sealed(sender)
    founding = Founding("fabrikam", "Fabrikam", "standard", "Fay", "fay@fabrikam.example")
    manages(world, "olga", tenants.add, founding, {"standard": Plan()})

    post.deliver(sender, open_notices(sender))

    (mail,) = [mail for mail in post.mail.sent if mail.to_name == "Fay"]
    assert (public().fingerprint in mail.text, public().fingerprint in str(mail.html)) == (True, True)


def test_a_key_that_signs_silence_first_is_listed(world: World, sender: Database, later: ShiftedClock) -> None:
    world.fresh()
    sealed(sender)
    later.shift = timedelta(minutes=61)
    key = Ed25519PrivateKey.generate()
    rotated = sealing.Signer("lockbox.test", [key])
    assert list(sealing.seal(sender, rotated, lambda *_: False))

    assert rotated.public.text in {row.key for row in read(unbound(sender), "SELECT key FROM audit_keys")}
