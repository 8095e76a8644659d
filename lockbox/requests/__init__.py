"""The life of a request: its states and moves, its policy, and the only code that writes one."""
