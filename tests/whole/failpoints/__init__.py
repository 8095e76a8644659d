"""Processes that end at each failpoint in turn, are started again, and have lost, doubled or left open nothing."""
