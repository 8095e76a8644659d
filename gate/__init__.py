"""The gate in front of a vendor's service: it decides each call by the open windows."""
