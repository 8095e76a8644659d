"""The HTTP API and the portal; no rules, no Celery."""
