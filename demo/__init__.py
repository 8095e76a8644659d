"""The demo: six requests at once on real servers, and a proof of how each of them ended."""
