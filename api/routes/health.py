"""Health routes: liveness and readiness."""

from typing import Literal

from fastapi import Request, Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError

from api.call_routes import CallRouter
from api.deps import DatabaseDep
from lockbox.audit.log import checkpoint_folder
from lockbox.database import Database
from lockbox.monitoring.write_trial import WriteTrial
from lockbox.redis_scripts import RedisUnavailable
from lockbox.startup_checks import StartupCheckFailed, fits

router = CallRouter(tags=["health"])


class Liveness(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether requests can be served: Postgres is required; without Redis everything works, more slowly.

    `audit_log` is `rolled_back` if the database, after a restore, holds less of the log than the shipped checkpoints
    attest: then no access is granted. `writes` is the result of a trial write, which fails for example if commits
    wait for a dead standby; reads continue.
    """

    status: Literal["ready", "degraded", "down"]
    postgres: str
    writes: str
    redis: str
    audit_log: str


# An async route uses no thread: other requests may occupy all threads.
@router.get("/livez")
async def get_liveness() -> Liveness:
    """Answer as long as the process runs."""
    return Liveness()


@router.get("/readyz", responses={503: {"model": Readiness}})
def get_readiness(request: Request, db: DatabaseDep, response: Response) -> Readiness:
    """Answer 200 if Postgres has the right schema; *degraded* without Redis or writes, or after a log rollback."""
    postgres, redis = _postgres(db), _redis(db)
    if postgres != "ok":
        response.status_code = 503
        return Readiness(status="down", postgres=postgres, writes="unknown", redis=redis, audit_log="unknown")
    trial: WriteTrial = request.app.state.write_trial
    writes, audit_log = trial.outcome(db.engine).value, _audit_log(db)
    return Readiness(
        status="ready" if redis == audit_log == writes == "ok" else "degraded",
        postgres=postgres,
        writes=writes,
        redis=redis,
        audit_log=audit_log,
    )


def _postgres(db: Database) -> str:
    try:
        with db.engine.connect() as connection:
            fits(connection)
    except StartupCheckFailed as unfit:
        return str(unfit)
    except SQLAlchemyError:
        return "away"
    return "ok"


def _audit_log(db: Database) -> str:
    try:
        with db.transaction() as session:
            shipped = checkpoint_folder.of(session)
            return "rolled_back" if shipped and shipped.all_doubts(session) else "ok"
    except SQLAlchemyError:
        return "unknown"


def _redis(db: Database) -> str:
    try:
        db.schedule.ping()
    except RedisUnavailable as away:
        return f"away: {away}"
    return "ok"
