"""The error of settings that cannot be used, apart from the settings: a client need not load a server's."""


class UnsafeSettings(Exception):  # noqa: N818 - it names what was found, not a fault of ours
    """The settings cannot be used; the message has one line for each problem."""
