"""The private parts of frameworks that the product uses, and why. Any new version may change them.

They cannot all be in this package, because the core imports neither FastAPI nor Celery:

- psycopg, in `lockbox/driver/prepared_statements.py`: each refusal is a ROLLBACK, after which psycopg forgets every
  prepared statement. psycopg has no setting for that, and planning a statement takes longer than running it
  (decision 34). `tests/database/test_connections.py` names the version whose code was read.
- FastAPI, in `api/deps.py`: it has no public list of a route's parameters, and a parameter that the route would
  ignore has to be refused.
- uvicorn, in `api/http_protocol.py` and the server next to it; Celery with kombu, in `worker/transport.py` and
  `worker/prefork.py`: subclasses that override protected methods. `pyproject.toml` limits their versions.
- honcho, only on a developer's machine, in `devstack/run.py`: it has no public list of its processes.

`tests/check/test_private_parts.py` refuses private parts anywhere else.
"""
