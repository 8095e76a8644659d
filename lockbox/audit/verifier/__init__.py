"""Offline verification of an export, with no help from the server."""
