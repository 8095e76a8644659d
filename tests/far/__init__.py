"""Far tests: they take minutes. `make test-far` runs them; `make test` does not."""
