"""Verify an export offline, without anything from the server."""
