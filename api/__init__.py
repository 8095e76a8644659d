"""The HTTP API and the portal. It contains no rules and does not use Celery."""
