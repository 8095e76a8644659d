"""The door for terminals: a client of the API, and what starts the whole on one machine."""
