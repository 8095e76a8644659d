"""Open and close access at targets for windows: one row a connection, driven by Celery tasks."""
