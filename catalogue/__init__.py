"""The service catalogue: what a file of it may say, and how it is read."""
