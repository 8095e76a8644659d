"""Pages of the vendor's own side."""
