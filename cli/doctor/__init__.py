"""Checks of an installation, made on the machine of one of its processes."""
