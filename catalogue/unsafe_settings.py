"""The error of unusable settings, for clients that load no server's settings."""


class UnsafeSettings(Exception):  # noqa: N818 - the name says what is wrong, and not with our code
    """The message has one line for each problem."""
