"""Senders of mail and webhook calls, behind one protocol."""
