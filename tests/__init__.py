"""Tests, by distance: unit, database, http, whole."""
