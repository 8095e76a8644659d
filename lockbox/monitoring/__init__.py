"""Monitoring: heartbeats, metrics, status, invariant checks and alerts."""
