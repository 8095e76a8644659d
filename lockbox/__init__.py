"""The house: all that is true of a request without HTTP, Celery or a terminal."""
