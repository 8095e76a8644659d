"""Tests of the distance: whole."""
