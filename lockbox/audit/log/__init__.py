"""Merkle tree logs of events, their signed checkpoints, and the witness that they are shipped to."""
