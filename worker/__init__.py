"""The door for the clock: Celery in, nothing else."""
