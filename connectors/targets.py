"""Read what the connector worker needs to reach a target: a file of its own for each, that others can't read."""

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
    """The folder of the targets' files. A file is read at each use, so that a changed one counts at once."""

    path: Path | None

    def lines(self, target: str) -> list[str]:
        """Return the lines of a target's file that are not empty.

        Raises:
            ConnectorFailed: there is no such file, or others than its owner and its group may read or change it.
        """
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
