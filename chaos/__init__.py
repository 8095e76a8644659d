"""Chaos: the real stack under load while a seeded plan of faults runs; then heal, drain, and check the invariants."""
