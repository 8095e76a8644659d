"""The HTTP API and the portal; they contain no rules and no Celery."""
