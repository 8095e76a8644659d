"""What a worker process works with comes from its settings, and nothing is connected to make it."""

from config.settings import Settings
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.audit.verifier.approval_checks import NAME
from tests.logs import KEY, OTHER_KEY, public
from worker import runtime


def test_senders_believe_checkpoints_by_the_keys_of_the_settings_the_newest_first() -> None:
    keys = [public(OTHER_KEY), public(KEY)]
    of_approvals = VerifierKey(NAME, KEY.public_key().public_bytes_raw()).text
    chosen = Settings(
        environment="test",
        worker_database_url="postgresql+psycopg://worker@127.0.0.1:1/nothing",
        redis_url="redis://127.0.0.1:1/0",
        smtp_url="smtp://127.0.0.1:1",
        audit_public_keys=tuple(key.text for key in keys),
        approval_public_keys=(of_approvals,),
    )

    senders = runtime.make(chosen).senders

    assert senders is not None
    assert list(senders.audit_keys.values()) == keys
    assert senders.approval_keys == (of_approvals,)
