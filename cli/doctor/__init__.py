"""Checks of an installation, from the machine of one of its processes."""
