"""Read a target's address and secrets from its own file."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from catalogue.connector_document import TARGET
from connectors.protocol import ConnectorFailed

MOST_BYTES = 16_384
OTHERS = stat.S_IWGRP | stat.S_IRWXO


@dataclass(frozen=True)
class TargetFolder:
    """A file is read at each use, so that changes take effect at once."""

    path: Path | None

    def lines(self, target: str) -> list[str]:
        """Return a target's non-empty lines. Refuse a file that users other than its owner and group may read."""
        if self.path is None or not TARGET.fullmatch(target):
            raise ConnectorFailed("no_target_file")
        try:
            with (self.path / target).open("rb") as file:
                self._check(os.fstat(file.fileno()))
                content = file.read(MOST_BYTES).decode()
        except (OSError, UnicodeDecodeError):
            raise ConnectorFailed("no_target_file") from None
        return [line.strip() for line in content.splitlines() if line.strip()]

    @staticmethod
    def _check(found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode) or found.st_mode & OTHERS or found.st_uid not in {0, os.geteuid()}:
            raise ConnectorFailed("target_file_readable")
