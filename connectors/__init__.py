"""Open and close access at targets for windows. Each connection is a row; Celery tasks drive it."""
