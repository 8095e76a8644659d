"""Watching an installation at work: who lives, what is late, what Redis holds, and what must never be."""
