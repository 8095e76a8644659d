"""The whole stack on one machine: for trying it out, for demos and for tests."""
