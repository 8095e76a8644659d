"""A database of the revision before rules were made firmer: what it holds goes on to hold under them."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from lockbox import migrations
from tests.builders import Urls
from tests.database.scenes import read, write

BEFORE = "0008"
ADD = """
INSERT INTO endpoints (id, tenant_id, url, secret, event_types, disabled_at, created_at, description, format,
    with_justification, removed_at)
VALUES (uuidv7(), {tenant}, :url, '', '{{}}', {ended}, now(), '', 'json', true, {ended})
"""
TENANT = """
WITH made AS (INSERT INTO tenants (id, slug, name, mode, suspended, created_at, plan, policy_version)
    VALUES (uuidv7(), 'contoso', 'Contoso', 'enforce', false, now(), 'standard', 1) RETURNING id)
INSERT INTO policies (tenant_id, version, body, created_at) SELECT id, 1, '{}', now() FROM made
"""


@pytest.fixture
def before(urls: Urls, superuser: Engine) -> Iterator[Urls]:
    """A database as it was."""
    name = f"{make_url(urls.owner).database}_before"
    write(superuser, f"CREATE DATABASE {name} TEMPLATE template0 OWNER lockbox_owner")

    def there(url: str) -> str:
        return make_url(url).set(database=name).render_as_string(hide_password=False)

    migrations.upgrade(there(urls.owner), BEFORE)
    yield Urls(
        there(urls.superuser),
        there(urls.owner),
        there(urls.api),
        there(urls.worker),
        urls.redis,
        urls.smtp,
        urls.maildir,
    )
    write(superuser, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def root(before: Urls) -> Iterator[Engine]:
    """That database with every right."""
    engine = create_engine(before.superuser, poolclass=NullPool)
    yield engine
    engine.dispose()


def test_webhooks_of_the_vendor_are_told_no_reason_any_more_and_those_of_tenants_as_before(
    before: Urls, root: Engine
) -> None:
    write(root, TENANT)
    write(root, ADD.format(tenant="NULL", ended="NULL"), url="https://vendor.example")
    write(root, ADD.format(tenant="NULL", ended="now()"), url="https://gone.example")
    write(root, ADD.format(tenant="(SELECT id FROM tenants)", ended="NULL"), url="https://contoso.example")

    migrations.upgrade(before.owner)

    rows = read(root, "SELECT url, with_justification FROM endpoints WHERE removed_at IS NULL ORDER BY url")
    assert [tuple(row) for row in rows] == [("https://contoso.example", True), ("https://vendor.example", False)]
    assert len(read(root, "SELECT FROM endpoints")) == 3
