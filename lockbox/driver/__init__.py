"""The private parts of frameworks that the product uses, which any new version may change: a page of why.

- psycopg, here alone: a refusal is a ROLLBACK, and psycopg then forgets every prepared statement, of which it has no
  setting; planning takes longer than running (decision 34). `tests/database/test_connections.py` names the version
  that was read. `lockbox.call_groups` builds on public parts: pipelines, and greenlets.
- FastAPI, in `api/deps.py` alone: it lists no parameters of a route in public, and a parameter that the route would
  ignore has to be refused. The core imports no FastAPI, so this cannot stand here.
- uvicorn, in `api/http_protocol.py` and the server beside it, and Celery with kombu, in `worker/transport.py` and
  `worker/prefork.py`: subclasses that override protected methods. `pyproject.toml` bounds their versions.

`tests/check/test_private_parts.py` refuses any other place.
"""
