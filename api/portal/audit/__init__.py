"""Pages of the audit log and what proves it."""
