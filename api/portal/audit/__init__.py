"""Pages of the audit log and of its proofs."""
