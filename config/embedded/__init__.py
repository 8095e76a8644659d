"""Postgres, Redis and a mail catcher for one machine, from wheels: no Docker and no root needed."""

from config.embedded.folder import EmbeddedRefused, default_folder
from config.embedded.servers import Servers, find, start

__all__ = ["EmbeddedRefused", "Servers", "default_folder", "find", "start"]
