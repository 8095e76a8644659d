"""The log: a Merkle tree over the events, its signed checkpoints, and their witness."""
