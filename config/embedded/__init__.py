"""Run Postgres, Valkey and a mail catcher from wheels on one machine, without Docker or root."""

from config.embedded.folder import EmbeddedRefused, default_folder
from config.embedded.servers import ServerAddresses, find, start

__all__ = ["EmbeddedRefused", "ServerAddresses", "default_folder", "find", "start"]
