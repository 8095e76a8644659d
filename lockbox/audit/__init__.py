"""The audit log: append-only events, their sealed Merkle logs, exports, reports and the verifier."""
