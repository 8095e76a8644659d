"""A proxy for Postgres that can lose a commit's acknowledgement: the commit holds, but the client is not told."""

from sqlalchemy.engine import make_url

from harness.network import Filter, Proxy


class CommitLosingProxy(Proxy):
    """Passes bytes both ways; while `losing`, the answer to a COMMIT is dropped and the connection reset."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self.losing = False
        self.lost = 0
        super().__init__(int(self._url.port or 5432), self._watched)

    @property
    def url(self) -> str:
        return self._url.set(host="127.0.0.1", port=self.port).render_as_string(hide_password=False)

    def _watched(self) -> tuple[Filter, Filter]:
        committing = False

        def forth(part: bytes) -> bytes:
            nonlocal committing
            committing = committing or (self.losing and b"COMMIT" in part)
            return part

        def back(part: bytes) -> bytes:
            if committing:
                # Postgres answers a COMMIT only once it stands.
                self.lost += 1
                raise ConnectionResetError
            return part

        return forth, back
