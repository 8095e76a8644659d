"""Public keys of the audit log as settings: C2SP signed notes' `name+id+base64`."""

import base64
import hashlib
import re
from typing import Annotated

from pydantic import AfterValidator

FORM = re.compile(r"([^\s+]{1,100})\+([0-9a-f]{8})\+([A-Za-z0-9+/]{44})")
ED25519 = b"\x01"
APPROVALS = "lockbox/approvals"


def _checked(text: str) -> str:
    parts = FORM.fullmatch(text)
    if parts:
        name, said, encoded = parts.groups()
        key = base64.b64decode(encoded)
        named = hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[: len(said)]
        if key.startswith(ED25519) and named == said:
            return text
    raise ValueError("write each as name+id+base64, as `lockbox operate public-keys` prints it")


def _of_approvals(text: str) -> str:
    if text.partition("+")[0] != APPROVALS:
        raise ValueError("name keys of approvals, as `lockbox operate public-keys --of-approvals` prints them")
    return text


PublicKey = Annotated[str, AfterValidator(_checked)]
ApprovalKey = Annotated[PublicKey, AfterValidator(_of_approvals)]
