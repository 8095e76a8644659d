"""Check the URLs of servers. Errors are ValueErrors that say how to write the URL, and never quote a password."""

import re
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

DRIVER = "postgresql+psycopg"
POSTGRES = frozenset({"postgresql", "postgres", DRIVER})
REDIS = frozenset({"redis", "rediss"})
SMTP = frozenset({"smtp", "smtp+starttls", "smtps"})
POSTGRES_PORT, MOST_PORT = 5432, 65535
ENCODED = "write @ in a password as %40, / as %2F, # as %23 and : as %3A"


def postgres_url(value: str) -> str:
    scheme, _, rest = value.partition("://")
    if scheme not in POSTGRES or not rest:
        raise ValueError("use a URL such as postgresql://user:password@host:5432/lockbox")
    rest = _of_several(rest)
    try:
        found = make_url(f"{DRIVER}://{rest}")
    except (ArgumentError, ValueError):
        found = URL.create(DRIVER, port=0)
    if not _is_server(found.host, found.port):
        raise ValueError(f"name a host and a port from 1 to {MOST_PORT}; {ENCODED}")
    return f"{DRIVER}://{rest}"


def _of_several(rest: str) -> str:
    place, slash, more = rest.partition("/")
    user, at, hosts = place.rpartition("@")
    if "," not in hosts:
        return rest
    if not re.fullmatch(r"[\w.-]+(:\d+)?(,[\w.-]+(:\d+)?)+", hosts) or not slash:
        raise ValueError(f"name several hosts as in postgresql://user:password@db1:5432,db2:5432/lockbox; {ENCODED}")
    name, _, query = more.partition("?")
    # If one host had no port, SQLAlchemy would pass no port for any host.
    found = [f"host={host if ':' in host else f'{host}:{POSTGRES_PORT}'}" for host in hosts.split(",")]
    if any(not 1 <= int(host.rpartition(":")[2]) <= MOST_PORT for host in found):
        raise ValueError(f"name ports from 1 to {MOST_PORT}")
    found += [query] if query else []
    found += [] if "target_session_attrs=" in query else ["target_session_attrs=read-write"]
    return f"{user}{at}/{name}?{'&'.join(found)}"


def libpq_url(url: URL) -> URL:
    several = url.query.get("host")
    if not isinstance(several, tuple):
        return url.set(drivername="postgresql")
    hosts, ports = zip(*(one.rpartition(":")[::2] for one in several), strict=True)
    return url.set(drivername="postgresql", query={**url.query, "host": ",".join(hosts), "port": ",".join(ports)})


def has_password(database_url: str) -> bool:
    return bool(make_url(database_url).password)


def check_redis_url(value: str) -> str:
    parts = _parts(value)
    if "sentinel" in parts.scheme or "cluster" in parts.scheme or "," in parts.netloc.rpartition("@")[2]:
        raise ValueError(
            "Redis Sentinel, Redis Cluster and several hosts are not supported: name one address that leads to the "
            "primary, such as a proxy's, as in redis://:password@host:6379/0"
        )
    if parts.scheme not in REDIS:
        raise ValueError("use a URL such as redis://:password@host:6379/0, or rediss:// for TLS")
    if not _is_server(parts.hostname, _port(parts)) or not re.fullmatch(r"/?\d{0,4}", parts.path):
        raise ValueError(
            f"name a host, a port from 1 to {MOST_PORT} and a database by its number, as in "
            f"redis://:password@host:6379/0; {ENCODED}"
        )
    return value


def check_smtp_url(value: str) -> str:
    parts = _parts(value)
    if parts.scheme not in SMTP:
        raise ValueError("use smtp+starttls://user:password@host:587, smtps://… or smtp://… (plain)")
    if not _is_server(parts.hostname, _port(parts)):
        raise ValueError(f"name a host and a port from 1 to {MOST_PORT}; {ENCODED}")
    return value


def _parts(value: str) -> SplitResult:
    try:
        return urlsplit(value)
    except ValueError:
        return urlsplit("")


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        return 0


def _is_server(host: str | None, port: int | None) -> bool:
    return (port is None or 1 <= port <= MOST_PORT) and "@" not in (host or "")


def _is_web(parts: SplitResult, schemes: Collection[str] = ("https", "http")) -> bool:
    return parts.scheme in schemes and bool(parts.hostname) and _port(parts) != 0


def check_origin(value: str) -> str:
    parts = _parts(value)
    if not _is_web(parts):
        raise ValueError("use an address such as https://lockbox.example")
    if "@" in parts.netloc or parts.path not in {"", "/"} or "?" in value or "#" in value:
        raise ValueError("name the scheme, the host and perhaps a port, and nothing else")
    return value.rstrip("/")


def check_page(value: str) -> str:
    if not _is_web(_parts(value)):
        raise ValueError("use an address such as https://flower.example")
    return value


def check_collector(value: str) -> str:
    parts = _parts(value)
    if not _is_web(parts) or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("use an address such as http://collector:4318; headers go into OTEL_EXPORTER_OTLP_HEADERS")
    return value


def check_case_url(value: str) -> str:
    parts = _parts(value)
    is_one = _is_web(parts, ["https"]) and not {"@", "{"} & set(parts.netloc)
    if not is_one or value.count("{") != 1 or value.count("}") != 1 or "{case}" not in value:
        raise ValueError("use an https address in whose path {case} stands once, such as https://desk.example/{case}")
    return value
