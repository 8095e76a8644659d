"""The command line: a client of the API, and the commands that start everything on one machine."""
