"""The error of unusable settings, for clients that load no server's settings."""


class UnsafeSettings(Exception):  # noqa: N818 - it names what was found, not a fault of ours
    """The message has one line for each problem."""
