"""The core of Lockbox: requests, rules, audit log and notifications, without HTTP, Celery or a terminal."""
