"""Calls that arrive together share a transaction and its round trips (decision 34)."""
