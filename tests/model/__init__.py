"""The life of a request explored state by state, over the very code that decides it."""
