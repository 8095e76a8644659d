"""Benchmarks: how late deadlines end, alone and in a storm, what idling costs, and how soon notifications leave."""
