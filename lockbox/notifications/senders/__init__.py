"""Ways out: one protocol, and each a real way of sending."""
