"""Tests of the distance: unit."""
