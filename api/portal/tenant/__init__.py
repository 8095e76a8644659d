"""Pages of one customer."""
