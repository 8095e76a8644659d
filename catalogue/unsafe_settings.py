"""The error of unusable settings, apart from them: clients need not load a server's settings."""


class UnsafeSettings(Exception):  # noqa: N818 - it names what was found, not a fault of ours
    """The settings cannot be used; the message has one line a problem."""
