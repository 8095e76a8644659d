"""The demo: nine requests on real servers, and a proof of how each of them ended."""
