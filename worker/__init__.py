"""The worker: Celery tasks and the threads that run timers, notifications, sealing and reconciliation."""
