"""Check of Redis or Valkey."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from cli.doctor import clock
from cli.doctor.findings import DoctorFinding, failure, warning, well
from config.settings import LOOPBACK, Settings
from lockbox import redis_scripts
from lockbox.redis_scripts import RedisFacts, RedisUnavailable

VARIABLE = "LOCKBOX_REDIS_URL"
SECONDS = 3.0
NO_LOGIN = frozenset({"AuthenticationError", "NoPermissionError", "AuthorizationError"})
MOST_USED = 0.8
CHECK, POLICY, PERSISTENCE = "Redis", "Redis, policy", "Redis, persistence"


def check_redis(settings: Settings) -> Iterator[DoctorFinding]:
    if settings.redis_url is None:
        return
    url = settings.redis_url.get_secret_value()
    try:
        facts = redis_scripts.read_facts(url, timeout=SECONDS)
    except RedisUnavailable as away:
        yield _unreachable(str(away))
        return
    yield well(CHECK, "reached, and it takes the login")
    yield from _encryption(url, is_strict=settings.environment == "production")
    yield clock.compare("Clock, Redis", "Redis", lambda: redis_scripts.read_facts(url, timeout=SECONDS).now)
    yield from _policy(facts)
    yield from _persistence(facts)


def _unreachable(error: str) -> DoctorFinding:
    if error in NO_LOGIN:
        return failure(CHECK, f"it refuses the login ({error})", f"check the user and the password in {VARIABLE}")
    return failure(CHECK, f"it cannot be reached ({error})", f"start it, or check the host and port in {VARIABLE}")


def _encryption(url: str, *, is_strict: bool) -> Iterator[DoctorFinding]:
    parts = urlsplit(url)
    if parts.scheme == "redis" and parts.hostname and parts.hostname not in LOOPBACK:
        level = failure if is_strict else warning
        yield level(CHECK, f"the connection to {parts.hostname} is not encrypted", f"use rediss:// in {VARIABLE}")


def _policy(facts: RedisFacts) -> Iterator[DoctorFinding]:
    if facts.is_replica:
        yield failure(CHECK, "it is a replica, which takes no writes", f"name the primary in {VARIABLE}")
    if facts.policy != "noeviction":
        yield failure(
            POLICY,
            f"maxmemory-policy is {facts.policy}: it may drop queues and schedules",
            "set maxmemory-policy noeviction",
        )
    elif facts.most and facts.used > MOST_USED * facts.most:
        yield warning(
            POLICY, f"{facts.used / facts.most:.0%} of maxmemory is used: it soon takes no writes", "raise maxmemory"
        )
    else:
        yield well(POLICY, "noeviction: it drops nothing")


def _persistence(facts: RedisFacts) -> Iterator[DoctorFinding]:
    if not facts.is_written:
        yield failure(
            PERSISTENCE, "its last write to disk failed", "see its log: the disk is full, or it may not write there"
        )
    elif facts.is_kept is False:
        yield warning(
            PERSISTENCE,
            "it keeps nothing over a restart: deadlines then wait until reconcile has read them from Postgres",
            "set appendonly yes",
        )
    else:
        yield well(PERSISTENCE, "it keeps its data over a restart" if facts.is_kept else "it does not tell")
