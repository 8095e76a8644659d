"""The audit trail: events that are written with what they record and never touched again."""
