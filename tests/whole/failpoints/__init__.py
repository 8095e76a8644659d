"""Processes end at each failpoint in turn and start again; nothing is lost, doubled or left open."""
