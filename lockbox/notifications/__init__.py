"""Notifications: the recipients of each move, and the sending of mails and webhook calls."""
