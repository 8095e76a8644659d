"""Offline verification of an export, without anything from the server."""
