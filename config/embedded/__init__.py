"""Postgres, Redis and a mail catcher for one machine, from wheels: no Docker and no root needed."""

from config.embedded.folder import EmbeddedRefused, default_folder
from config.embedded.servers import ServerAddresses, find, start

__all__ = ["EmbeddedRefused", "ServerAddresses", "default_folder", "find", "start"]
