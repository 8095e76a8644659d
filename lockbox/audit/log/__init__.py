"""Merkle tree logs of events, their signed checkpoints, and the folder that they are shipped to."""
