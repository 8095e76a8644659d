"""Merkle tree logs of events, their signed checkpoints, and the folder to which checkpoints are shipped."""
