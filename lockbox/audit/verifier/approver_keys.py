"""The file of approvers' public keys, which a customer uses to check signed approvals; pure."""

import base64
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from lockbox.audit.canonical import decoded
from lockbox.audit.verifier.passkey_assertion import fingerprint

KEY_FILE_FORMAT = "lockbox approver keys 1"
LONGEST_FILE = 1 << 20
GROUP = 8


class BadKeys(Exception):  # noqa: N818 - it names what was found
    pass


@dataclass(frozen=True)
class ApproverKey:
    """The public key of a person's passkey, as SubjectPublicKeyInfo in DER."""

    person_id: str
    name: str
    public_key: bytes
    added_at: str

    @property
    def fingerprint(self) -> str:
        """The key's SHA-256 in hex, to compare with the approver's own account page."""
        return fingerprint(self.public_key)


@dataclass(frozen=True)
class ApproverKeys:
    """A tenant's keys; `rp_id` and `origin` are the host and the origin for which its passkeys sign."""

    tenant_id: str
    rp_id: str
    origin: str
    exported_at: str
    keys: tuple[ApproverKey, ...]


def grouped(print_: str) -> str:
    return " ".join(print_[at : at + GROUP] for at in range(0, len(print_), GROUP))


def document(given: ApproverKeys) -> dict[str, Any]:
    keys = [
        asdict(key) | {"public_key": base64.b64encode(key.public_key).decode(), "fingerprint": key.fingerprint}
        for key in given.keys
    ]
    return {"format": KEY_FILE_FORMAT, **vars(given), "keys": keys}


def read(text: str | bytes) -> ApproverKeys:
    """Raises BadKeys."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise BadKeys("the file of approvers' keys is no JSON") from None
    match said:
        case {
            "format": str(form),
            "tenant_id": str(tenant),
            "rp_id": str(rp_id),
            "origin": str(origin),
            "exported_at": str(at),
            "keys": list(keys),
        } if form == KEY_FILE_FORMAT:
            return ApproverKeys(tenant, rp_id, origin, at, tuple(map(_key, keys)))
    raise BadKeys(
        f"a file of approvers' keys has the format {KEY_FILE_FORMAT}: export it from your organisation's page"
    )


def by_person(
    files: Iterable[ApproverKeys], tenant_id: str | None
) -> dict[tuple[str, str], tuple[ApproverKeys, ApproverKey]]:
    return {
        (key.person_id, key.fingerprint): (file, key)
        for file in files
        if file.tenant_id == tenant_id
        for key in file.keys
    }


def _key(said: object) -> ApproverKey:
    match said:
        case {
            "person_id": str(person),
            "name": str(name),
            "public_key": str(public_key),
            "fingerprint": str(shown),
            "added_at": str(at),
        }:
            try:
                key = ApproverKey(person, name, decoded(public_key), at)
                load_der_public_key(key.public_key)
            except (ValueError, UnsupportedAlgorithm):
                raise BadKeys(f"a key of {name} in the file of approvers' keys is no public key") from None
            if key.fingerprint != shown.replace(" ", ""):
                raise BadKeys(f"a fingerprint of {name} in the file of approvers' keys is not that of its key")
            return key
    raise BadKeys("a key in the file of approvers' keys is malformed")
