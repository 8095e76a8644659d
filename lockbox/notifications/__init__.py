"""Notifications: who is notified of a move, and how the mails and webhook calls are sent."""
