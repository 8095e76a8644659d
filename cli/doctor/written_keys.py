"""Checks that a process's keys are the keys that the database was written with."""

import os
from collections.abc import Iterator

from cryptography.fernet import InvalidToken
from sqlalchemy import Engine, text

from cli.doctor.files import KEY_FILES
from cli.doctor.findings import DoctorFinding, failure, well
from config.settings import Settings
from lockbox.audit.log import checkpoint, signing_keys
from lockbox.audit.log.checkpoint import BadNote, VerifierKey
from lockbox.audit.log.signing_keys import BadKey
from lockbox.audit.verifier.approval_checks import NAME as APPROVALS
from lockbox.database import Database, ProcessKeys
from lockbox.identity import keyring
from lockbox.identity.row_macs import MarkScans
from lockbox.notifications.endpoints import SecretVault
from lockbox.schedule import Schedule
from lockbox.startup_checks import ServerKind

CHECK = "Keys"
NOWHERE = "redis://127.0.0.1:1/0"
KNOWN = text("SELECT key, purpose FROM known_audit_keys()")
NOTES = text("SELECT note FROM logs WHERE note <> '' ORDER BY id LIMIT 100")
NONCES = text("""
(SELECT code_nonce FROM invitations WHERE accepted_at IS NULL AND withdrawn_at IS NULL ORDER BY id DESC LIMIT 20)
UNION ALL (SELECT code_nonce FROM sign_ins WHERE code_nonce IS NOT NULL ORDER BY id DESC LIMIT 20)
""")
SECRETS = text("SELECT secret FROM endpoints WHERE removed_at IS NULL ORDER BY id LIMIT 100")


def check_written_keys(settings: Settings, kind: ServerKind, engine: Engine) -> Iterator[DoctorFinding]:
    """Check the keys against the rows that this kind of process may read."""
    if not all(
        os.access(file, os.R_OK, effective_ids=True) for name in KEY_FILES for file in getattr(settings, name)
    ):
        return
    try:
        found = list(_found(settings, kind, engine))
    except (BadKey, BadNote) as bad:
        yield failure(CHECK, str(bad), "name a file that `lockbox operate new-key` or its kin made, or restore it")
        return
    yield from found or [well(CHECK, "the database was written with those of this process")]


def _found(settings: Settings, kind: ServerKind, engine: Engine) -> Iterator[DoctorFinding]:
    if kind is ServerKind.API:
        yield from _marks(settings, engine)
        yield from _listed(settings, engine)
        return
    yield from _notes(settings, engine)
    if kind is ServerKind.WORKER:
        yield from _own_key(settings)
    if kind is ServerKind.NOTIFICATIONS:
        yield from _codes(settings, engine)
        yield from _secrets(settings, engine)


def _marks(settings: Settings, engine: Engine) -> Iterator[DoctorFinding]:
    files = settings.credential_key_files
    keys = keyring.read(files) if files else keyring.development()
    database = Database(engine, Schedule(NOWHERE), keys=ProcessKeys(keys))
    with database.transaction() as session:
        found = MarkScans().look(session)
    if found:
        yield failure(
            CHECK,
            f"LOCKBOX_CREDENTIAL_KEY_FILES: {len(found)} rows, the first of them {found[0]}, bear no mark of these "
            "keys: another key wrote them, or somebody who wrote past Lockbox",
            "name the file of that key as well, from where you keep it; if there is no other, see The credential key "
            "in docs/operating.md",
        )


def _listed(settings: Settings, engine: Engine) -> Iterator[DoctorFinding]:
    with engine.connect() as connection:
        rows = connection.execute(KNOWN).all()
    files = signing_keys.read(settings.approval_key_files)
    ours = {VerifierKey(APPROVALS, key.public_key().public_bytes_raw()).text for key in files}
    approvals = {row.key for row in rows if row.purpose != "log"}
    if files and approvals and not approvals & ours:
        yield failure(
            CHECK,
            "LOCKBOX_APPROVAL_KEY_FILES: none of these keys has signed an approval of this database",
            "name the file of the key that did as well, from where you keep it, until its windows have ended",
        )
    logs = {row.key for row in rows if row.purpose == "log"}
    if settings.audit_public_keys and logs and not logs & set(settings.audit_public_keys):
        yield _not_of_the_logs()


def _notes(settings: Settings, engine: Engine) -> Iterator[DoctorFinding]:
    trusted = signing_keys.trusted(settings.audit_public_keys)
    with engine.connect() as connection:
        notes = connection.execute(NOTES).scalars().all()
    for note in notes if trusted else ():
        try:
            checkpoint.verify(note, trusted)
        except BadNote:
            yield _not_of_the_logs()
            return


def _not_of_the_logs() -> DoctorFinding:
    return failure(
        CHECK,
        "LOCKBOX_AUDIT_PUBLIC_KEYS: no key of this list has signed the logs of this database",
        "write what `lockbox operate public-keys` prints with the core worker's settings and the key of that time",
    )


def _own_key(settings: Settings) -> Iterator[DoctorFinding]:
    """Check that the core worker signs with a key that all other processes trust."""
    keys = signing_keys.read(settings.audit_key_files)
    ours = [VerifierKey(settings.log_name, key.public_key().public_bytes_raw()).text for key in keys]
    if ours and settings.audit_public_keys and not set(ours) & set(settings.audit_public_keys):
        yield failure(
            CHECK,
            "LOCKBOX_AUDIT_KEY_FILES: no public half of these keys is in LOCKBOX_AUDIT_PUBLIC_KEYS",
            "name the files of the keys whose public halves are listed, or add to that list what `lockbox operate "
            "public-keys` prints",
        )


def _codes(settings: Settings, engine: Engine) -> Iterator[DoctorFinding]:
    files = settings.code_key_files
    keys = keyring.read_codes(files) if files else keyring.development_codes()
    with engine.connect() as connection:
        nonces = connection.execute(NONCES).scalars().all()
    if any(keys.short(bytes(nonce)) is None for nonce in nonces):
        yield failure(
            CHECK,
            "LOCKBOX_CODE_KEY_FILES: codes that wait to be entered are of another key",
            "derive it anew by `lockbox operate code-key` from the API's credential key, and name that file first",
        )


def _secrets(settings: Settings, engine: Engine) -> Iterator[DoctorFinding]:
    vault = SecretVault([key.get_secret_value() for key in settings.secret_keys])
    with engine.connect() as connection:
        sealed = connection.execute(SECRETS).scalars().all()
    for one in sealed:
        try:
            vault.open(bytes(one))
        except InvalidToken:
            yield failure(
                CHECK,
                "LOCKBOX_SECRET_KEYS: a webhook's secret was encrypted with a key that is not in the list",
                "add the older key at the end of the list, in the api and notifications processes",
            )
            return
