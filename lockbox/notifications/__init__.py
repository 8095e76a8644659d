"""Notifications: recipients of each move, and how mails and webhook calls are sent."""
