"""The service catalogue: the format of its file, and how it is read."""
