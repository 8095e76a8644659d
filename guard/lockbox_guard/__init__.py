"""Enforce Lockbox access windows inside a Python service."""

from lockbox_guard.decisions import Allowed, NoAccess, Refused, Use
from lockbox_guard.guard import Guard

__all__ = ["Allowed", "Guard", "NoAccess", "Refused", "Use"]
