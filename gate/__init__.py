"""The gate: it stands before a vendor's service and decides each call by the open windows."""
