"""Benchmarks: how late the clock is, alone and in a storm, and what idling costs."""
