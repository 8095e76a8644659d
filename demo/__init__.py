"""The demo: five requests at once on real servers, and a proof of how each of them ended."""
