"""The door for people: HTTP in, HTTP out; no rules, no Celery."""
