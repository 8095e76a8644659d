"""Tests of the distance: database."""
