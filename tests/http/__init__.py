"""Tests of the distance: http."""
