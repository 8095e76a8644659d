"""The error of unusable settings, in a module of its own: clients need not load a server's settings."""


class UnsafeSettings(Exception):  # noqa: N818 - it names what was found, not a fault of ours
    """The settings cannot be used. The message has one line for each problem."""
