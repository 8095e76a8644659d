"""Enforce Lockbox access windows inside a Python service."""

from lockbox_guard.asgi import AsgiGuard
from lockbox_guard.calls import CallCut, GuardedCall
from lockbox_guard.decisions import Allowed, NoAccess, Refused, Use
from lockbox_guard.guard import Guard
from lockbox_guard.watches import CallStanding
from lockbox_guard.wsgi import WsgiGuard

__all__ = [
    "Allowed",
    "AsgiGuard",
    "CallCut",
    "CallStanding",
    "Guard",
    "GuardedCall",
    "NoAccess",
    "Refused",
    "Use",
    "WsgiGuard",
]
