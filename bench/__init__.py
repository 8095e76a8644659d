"""Benchmarks: how late the clock is, alone and in a storm, what idling costs, and how soon notifications leave."""
