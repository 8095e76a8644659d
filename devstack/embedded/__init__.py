"""Run Postgres, Valkey and a mail catcher from wheels on one machine, without Docker or root."""

from devstack.embedded.folder import EmbeddedRefused, default_folder
from devstack.embedded.servers import ServerAddresses, find, start

__all__ = ["EmbeddedRefused", "ServerAddresses", "default_folder", "find", "start"]
