"""Read the file of demo users that `make run` writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from api.playground.mailbox import MailFolder
from catalogue.unsafe_settings import UnsafeSettings
from lockbox.identity.roles import VENDOR_ROLES, Role


class DemoUser(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    id: UUID
    name: str
    email: str
    role: Role
    token: SecretStr

    @property
    def words(self) -> str:
        return "admin" if self.role is Role.TENANT_ADMIN else self.role.value.replace("_", " ")


class DemoUsers(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: str
    maildir: Path
    people: tuple[DemoUser, ...]

    @property
    def mailbox(self) -> MailFolder:
        return MailFolder(self.maildir)

    @property
    def vendor(self) -> Sequence[DemoUser]:
        return [part for part in self.people if part.role in VENDOR_ROLES]

    @property
    def customer(self) -> Sequence[DemoUser]:
        return [part for part in self.people if part.role not in VENDOR_ROLES]

    def find(self, key: str) -> DemoUser | None:
        return next((part for part in self.people if part.key == key), None)

    def at(self, address: str) -> DemoUser | None:
        return next((part for part in self.people if part.email.casefold() == address.casefold()), None)

    def words_of(self, person_id: UUID) -> str:
        return next((part.words for part in self.people if part.id == person_id), "")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Service accounts are left out."""
        found = cls.model_validate_json(text)
        return found.model_copy(
            update={"people": tuple(person for person in found.people if person.role is not Role.SYSTEM)}
        )


def read(path: Path) -> DemoUsers:
    try:
        return DemoUsers.parse(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        raise UnsafeSettings("LOCKBOX_PLAYGROUND: it is the file that `make run` writes; leave it to that") from None
