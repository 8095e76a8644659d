"""Tests of the distance "whole": on the running stack."""
