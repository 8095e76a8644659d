"""Tests, by distance (how much of the system runs): unit, database, http, whole."""
