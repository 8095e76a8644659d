"""What every table shares: the naming of constraints, and column types that mean one thing everywhere."""

from enum import StrEnum

from sqlalchemy import DateTime, Enum, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import SQLModel

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}

Instant = DateTime(timezone=True)
Texts = ARRAY(Text())
Instants = ARRAY(Instant)
Ids = ARRAY(Uuid())


def words(kind: type[StrEnum]) -> Enum:
    """Return the column type of an enumeration: its values as text; the migration's CHECK refuses others."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=False,
        length=24,
        values_callable=lambda members: [member.value for member in members],
    )
