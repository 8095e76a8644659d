"""The whole stack on one machine: for trying out, demos and tests."""
