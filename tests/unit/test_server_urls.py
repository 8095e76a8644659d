"""Several hosts in a URL: of Postgres' hosts the writable one is used; for Redis they are refused with advice."""

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import make_url

from config.server_urls import check_redis_url, libpq_url, postgres_url
from tests.each import each

HOSTS = "db1.example:5432,db2.example:5433"
OTHERS = "host=db1:5432&host=db2:1&target_session_attrs=primary"


@each(
    ("url", "host", "port", "attrs"),
    [
        (f"postgresql://u:p%40@{HOSTS}/lockbox", "db1.example,db2.example", "5432,5433", "read-write"),
        ("postgresql://u:p%40@db1,db2/lockbox", "db1,db2", "5432,5432", "read-write"),
        ("postgresql://u:p%40@10.0.0.1,10.0.0.2:6/lockbox", "10.0.0.1,10.0.0.2", "5432,6", "read-write"),
        ("postgresql://u:p%40@db1:1,db2:2/lockbox?target_session_attrs=any", "db1,db2", "1,2", "any"),
        (f"postgresql://u:p%40@/lockbox?{OTHERS}", "db1,db2", "5432,1", "primary"),
    ],
)  # fmt: skip
def test_several_postgres_hosts_are_passed_on_and_the_writable_host_is_used(
    url: str, host: str, port: str, attrs: str
) -> None:
    found = make_url(postgres_url(url))
    _, given = found.get_dialect()().create_connect_args(found)

    assert given == {
        "user": "u", "password": "p@", "dbname": "lockbox", "host": host, "port": port, "target_session_attrs": attrs
    }  # fmt: skip


def test_a_single_postgres_host_is_unchanged() -> None:
    url = "postgresql://u:p,p@db1:5432/lockbox?sslmode=verify-full"

    assert postgres_url(url) == url.replace("postgresql", "postgresql+psycopg")


@each("hosts", ["db1:5432,", "db1:0,db2", "db1:99999,db2", "[::1]:5432,db2", "db1:x,db2"])
def test_invalid_postgres_hosts_are_refused_and_not_quoted(hosts: str) -> None:
    with pytest.raises(ValueError, match="name ") as refused:
        postgres_url(f"postgresql://u:s3cret@{hosts}/lockbox")

    assert "s3cret" not in str(refused.value)
    assert "db" not in str(refused.value).replace("db1:5432,db2:5432", "")


@each(
    "url",
    [
        "sentinel://:s3cret@s1:26379,s2:26379/mymaster/0",
        "redis+sentinel://:s3cret@s1:26379/mymaster",
        "redis://:s3cret@r1:6379,r2:6379/0",
        "rediss+cluster://r1:6379",
    ],
)
def test_redis_urls_for_sentinel_or_a_cluster_or_several_hosts_are_refused_with_advice(url: str) -> None:
    with pytest.raises(ValueError, match="not supported: name one address that leads to the primary") as refused:
        check_redis_url(url)

    assert "s3cret" not in str(refused.value)


def test_postgres_programs_get_separate_lists_of_hosts_and_ports() -> None:
    url = libpq_url(make_url(postgres_url("postgresql://u:p@db1:5432,db2:5433/lockbox?sslmode=require")))

    told = conninfo_to_dict(url.render_as_string(hide_password=False))

    assert (told["host"], told["port"], told["dbname"]) == ("db1,db2", "5432,5433", "lockbox")
    assert (told["sslmode"], told["target_session_attrs"]) == ("require", "read-write")
