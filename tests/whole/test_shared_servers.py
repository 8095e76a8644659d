"""The servers that the processes of a run share: however the run ends, the servers end with it."""

import pytest

from devstack import embedded
from devstack.embedded.processes import alive
from harness.stage import shared_folder

MAIL = ("mail",)


@pytest.mark.far
def test_embedded_servers_started_by_any_process_are_stopped_by_the_owner_of_the_folder() -> None:
    started = []

    def run() -> None:
        with shared_folder("shared") as folder:
            for number in range(2):
                servers = embedded.start(folder / f"mail-{number}", environment="test", only=MAIL)
                started.append((servers.folder, servers.pids["mail"]))
            (folder / "lock").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()

    assert len({pid for _, pid in started}) == 2
    assert not [pid for _, pid in started if alive(pid)]
    assert not [folder for folder, _ in started if folder.parent.exists()]
