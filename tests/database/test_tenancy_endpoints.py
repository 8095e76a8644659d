"""Webhooks of a tenant and of the vendor: who manages them, which sign-in each change needs, and who is notified."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock
from harness.outbox import fan_out_all
from harness.people import HERE, World
from harness.stage import as_sender, unbound
from lockbox.admin import delivery_log, webhooks
from lockbox.admin.webhooks import WebhookInput, WebhookUrlPolicy, WebhookWithSecret
from lockbox.database import Database
from lockbox.errors import (
    Invalid,
    NotFound,
    NotYours,
    SignInAgain,
    StillWaiting,
    TooMany,
    TooManyEndpoints,
)
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import authentication
from lockbox.identity.roles import Caller
from lockbox.notifications.models import Format, Outcome
from lockbox.requests.lifecycle import Action
from tests.database.audit_logs import last_change
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import as_caller, at_once, read, write
from tests.each import each
from tests.mailbox import told
from tests.policy_setup import signed_in

URL = "https://hooks.contoso.example/services/T000/a-secret"


@pytest.fixture
def reach(post: Postbag) -> WebhookUrlPolicy:
    return WebhookUrlPolicy(post.vault)


def acts(world: World, who: str | Caller, call: Callable[..., Any], *args: object, **named: Any) -> Any:
    with world.db.transaction() as session:
        return call(session, world.people[who] if isinstance(who, str) else who, HERE, *args, **named)


def added(world: World, reach: WebhookUrlPolicy, who: str = "tara", **changes: Any) -> WebhookWithSecret:
    """Add a webhook: of the tenant if its admin adds it, else of the vendor."""
    slug = world.tenant.slug if who == "tara" else None
    shown: WebhookWithSecret = acts(
        world, who, webhooks.add, slug, WebhookInput(**({"url": URL} | changes)), reach=reach
    )
    return shown


def tries(world: World, who: str, endpoint: WebhookWithSecret) -> list[Any]:
    with world.db.transaction() as session:
        log = delivery_log.log(session, world.people[who], endpoint.endpoint.id, cursor=None, most=100)
        return list(log.deliveries)


def test_an_added_webhook_is_called_and_its_secret_stored_encrypted(
    world: World, worker: Database, post: Postbag, reach: WebhookUrlPolicy
) -> None:
    shown = added(world, reach, event_types=("request.submitted",), description="Our channel")
    world.submit()

    post.deliver(worker, open_notifications(worker))

    (hook,) = post.hooks.sent
    assert hook.url == URL
    assert hook.secrets[0] == shown.secret
    assert shown.secret not in repr(shown)
    (row,) = read(world.db, "SELECT secret FROM endpoints")
    assert shown.secret.encode() not in bytes(row.secret)


def test_notifications_of_webhook_changes_contain_no_secrets(
    world: World, worker: Database, post: Postbag, reach: WebhookUrlPolicy
) -> None:
    everybody = {"Tara", "Ann", "Amir", "Abe"}
    shown = added(world, reach, description="Our channel")
    assert last_change(world.db).changes["url"] == "none → https://hooks.contoso.example"
    assert last_change(world.db).details["endpoint"] == "Our channel"
    acts(world, "tara", webhooks.change, shown.endpoint.id, {"event_types": ["request.approved"]}, reach=reach)
    assert last_change(world.db).changes == {"events": "all → request.approved"}
    acts(world, "tara", webhooks.change, shown.endpoint.id, {"url": URL + "-2"}, reach=reach)
    assert last_change(world.db).changes == {"url": "changed"}
    acts(world, "tara", webhooks.rotate, shown.endpoint.id, vault=reach.vault)
    assert last_change(world.db).changes == {"secret": "replaced; both sign for 24 h"}
    acts(world, "tara", webhooks.remove, shown.endpoint.id)

    post.deliver(worker, open_notifications(worker))

    for action in ("endpoint_added", "endpoint_changed", "endpoint_rotated", "endpoint_removed"):
        for names in told(world.db, action).values():
            assert everybody <= names
    assert len(post.mail.sent) == 5 * len(everybody)
    for mail in post.mail.sent:
        assert "a-secret" not in mail.text + mail.html
    for row in read(world.db, "SELECT body FROM events"):
        assert b"a-secret" not in bytes(row.body)
        assert b"Our channel" not in bytes(row.body)


@pytest.mark.parametrize("who", ["olga", "tara"])
def test_only_a_tenants_webhook_may_get_justifications(world: World, reach: WebhookUrlPolicy, who: str) -> None:
    shown = added(world, reach, who)
    theirs = who == "olga"

    with pytest.raises(Invalid, match="cannot receive justifications") if theirs else nullcontext() as refused:
        added(world, reach, who, with_justification=True)
    with pytest.raises(Invalid, match="cannot receive justifications") if theirs else nullcontext():
        acts(world, who, webhooks.change, shown.endpoint.id, {"with_justification": True}, reach=reach)

    assert refused is None or refused.value.facts["field"] == "with_justification"
    acts(world, who, webhooks.change, shown.endpoint.id, {"with_justification": False}, reach=reach)


def test_the_database_refuses_justifications_for_vendor_webhooks(world: World, reach: WebhookUrlPolicy) -> None:
    shown = added(world, reach, "olga")

    with pytest.raises(DBAPIError, match="ck_endpoints_with_justification"):
        write(
            unbound(world.db),
            "UPDATE endpoints SET with_justification = true WHERE id = :id",
            id=shown.endpoint.id,
        )


def test_saving_an_unchanged_webhook_changes_nothing(world: World, reach: WebhookUrlPolicy) -> None:
    shown = added(world, reach)
    before = len(read(world.db, "SELECT FROM events"))

    acts(world, "tara", webhooks.change, shown.endpoint.id, {"url": URL, "enabled": True}, reach=reach)

    assert len(read(world.db, "SELECT FROM events")) == before


WIDENING: dict[str, Callable[[World, Caller, WebhookWithSecret, WebhookUrlPolicy], object]] = {
    "add": lambda w, c, _, r: acts(w, c, webhooks.add, _slug(w, c), WebhookInput(URL), reach=r),
    "lead elsewhere": lambda w, c, s, r: acts(
        w, c, webhooks.change, s.endpoint.id, {"url": "https://evil.example/"}, reach=r
    ),
    "tell more": lambda w, c, s, r: acts(
        w,
        c,
        webhooks.change,
        s.endpoint.id,
        {"with_justification": True} if s.endpoint.tenant_id else {"event_types": ["request.approved"]},
        reach=r,
    ),
    "rotate": lambda w, c, s, r: acts(w, c, webhooks.rotate, s.endpoint.id, vault=r.vault),
}
CLOSING: dict[str, Callable[[World, Caller, WebhookWithSecret, WebhookUrlPolicy], object]] = {
    "disable": lambda w, c, s, r: acts(w, c, webhooks.change, s.endpoint.id, {"enabled": False}, reach=r),
    "describe": lambda w, c, s, r: acts(w, c, webhooks.change, s.endpoint.id, {"description": "Ours"}, reach=r),
    "remove": lambda w, c, s, _: acts(w, c, webhooks.remove, s.endpoint.id),
    "try out": lambda w, c, s, _: acts(w, c, delivery_log.try_out, s.endpoint.id),
}


def _slug(world: World, caller: Caller) -> str | None:
    return None if caller.vendor_roles() else world.tenant.slug


@each("who", ["tara", "olga"])
@each(("means", "minutes_ago"), [(AuthMethod.TOKEN, 0), (AuthMethod.MAIL, 0), (AuthMethod.PASSKEY, 16)])
@each("what", WIDENING)
def test_redirecting_a_webhook_needs_a_fresh_strong_sign_in(
    world: World, reach: WebhookUrlPolicy, *, what: str, means: AuthMethod, minutes_ago: float, who: str
) -> None:
    shown = added(world, reach, who)

    with pytest.raises(SignInAgain):
        WIDENING[what](world, signed_in(world, who, means, minutes_ago=minutes_ago), shown, reach)


@pytest.mark.parametrize("who", ["tara", "olga"])
@pytest.mark.parametrize("what", WIDENING)
def test_an_admin_with_a_fresh_strong_sign_in_may_redirect_a_webhook(
    world: World, reach: WebhookUrlPolicy, what: str, who: str
) -> None:
    assert WIDENING[what](
        world, signed_in(world, who, AuthMethod.PASSKEY, minutes_ago=1), added(world, reach, who), reach
    )


@pytest.mark.parametrize("who", ["tara", "olga"])
@pytest.mark.parametrize("what", CLOSING)
def test_an_admin_with_any_sign_in_may_restrict_a_webhook(
    world: World, reach: WebhookUrlPolicy, what: str, who: str
) -> None:
    CLOSING[what](world, signed_in(world, who, AuthMethod.TOKEN, minutes_ago=60), added(world, reach, who), reach)


def test_enabling_a_webhook_needs_a_fresh_sign_in(world: World, reach: WebhookUrlPolicy) -> None:
    shown = added(world, reach)
    acts(world, "tara", webhooks.change, shown.endpoint.id, {"enabled": False}, reach=reach)

    weak = signed_in(world, "tara", AuthMethod.TOKEN)
    with pytest.raises(SignInAgain):
        acts(world, weak, webhooks.change, shown.endpoint.id, {"enabled": True}, reach=reach)
    changed = acts(world, "tara", webhooks.change, shown.endpoint.id, {"enabled": True}, reach=reach)

    assert (changed.disabled_at, changed.why_disabled) == (None, None)


@each("who", ["erin", "max", "vera", "gate", "olga", "zack"])
def test_webhooks_of_a_tenant_are_visible_only_to_that_tenant(
    world: World, reach: WebhookUrlPolicy, who: str
) -> None:
    other = World.make(world.db)
    world.people["zack"] = other.people["tara"]
    shown = added(world, reach)

    for what in (*WIDENING, *CLOSING):
        if what != "add":
            with pytest.raises(NotFound):
                (WIDENING | CLOSING)[what](world, world.people[who], shown, reach)
    with pytest.raises((NotFound, NotYours)):
        acts(world, who, webhooks.add, world.tenant.slug, WebhookInput(URL), reach=reach)


@each("who", ["erin", "max", "vera", "gate"])
def test_only_operators_manage_vendor_webhooks(world: World, reach: WebhookUrlPolicy, who: str) -> None:
    shown = added(world, reach, "olga")

    for call in (WIDENING | CLOSING).values():
        with pytest.raises(NotYours):
            call(world, world.people[who], shown, reach)


@each("who", ["tara", "ann"])
def test_a_customer_does_not_see_vendor_webhooks(world: World, reach: WebhookUrlPolicy, who: str) -> None:
    shown = added(world, reach, "olga")

    for what in (*WIDENING, *CLOSING):
        if what != "add":
            with pytest.raises(NotFound):
                (WIDENING | CLOSING)[what](world, world.people[who], shown, reach)


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.contoso.example/",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/",
        "https://me:secret@hooks.contoso.example/",
        "https://hooks.contoso.example:25/",
        "ftp://hooks.contoso.example/",
    ],
)
def test_a_webhook_with_an_internal_address_is_refused_on_saving(
    world: World, reach: WebhookUrlPolicy, url: str
) -> None:
    shown = added(world, reach)

    with pytest.raises(Invalid) as refused:
        added(world, reach, url=url)
    with pytest.raises(Invalid):
        acts(world, "tara", webhooks.change, shown.endpoint.id, {"url": url}, reach=reach)

    assert refused.value.facts == {"field": "url"}
    assert len(read(world.db, "SELECT FROM endpoints")) == 1


@each(("who", "event"), [("tara", "request.opened"), ("olga", "tenant.policy_changed")])
def test_an_unknown_event_type_in_a_webhook_filter_is_refused(
    world: World, reach: WebhookUrlPolicy, who: str, event: str
) -> None:
    with pytest.raises(Invalid, match="There is no event"):
        added(world, reach, who, event_types=(event,))


def test_the_number_of_webhooks_is_limited(
    world: World, reach: WebhookUrlPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MOST_ENDPOINTS", 2)
    first, _ = added(world, reach), added(world, reach)

    with pytest.raises(TooManyEndpoints):
        added(world, reach)
    acts(world, "tara", webhooks.remove, first.endpoint.id)

    assert added(world, reach)


def test_a_removed_webhook_is_neither_called_nor_readable(
    world: World, worker: Database, post: Postbag, reach: WebhookUrlPolicy
) -> None:
    shown = added(world, reach)
    world.submit()
    acts(world, "tara", webhooks.remove, shown.endpoint.id)
    world.submit()

    ended = post.deliver(worker, open_notifications(worker))

    assert post.hooks.sent == []
    assert Outcome.DEAD not in {one.outcome for one in ended}
    (row,) = read(world.db, "SELECT secret, old_secret FROM endpoints")
    assert (bytes(row.secret), row.old_secret) == (b"", None)
    with pytest.raises(NotFound):
        tries(world, "tara", shown)
    with as_caller(world.db, world.people["tara"]) as connection, pytest.raises(Exception, match="was removed"):
        connection.exec_driver_sql("UPDATE endpoints SET disabled_at = now()")


@pytest.mark.parametrize("who", ["tara", "olga"])
@pytest.mark.parametrize("kind", Format)
def test_a_test_call_of_a_webhook_ignores_the_filter_and_is_logged(
    world: World, worker: Database, post: Postbag, reach: WebhookUrlPolicy, *, who: str, kind: Format
) -> None:
    shown = added(world, reach, who, event_types=("request.denied",), format=kind)

    notification = acts(world, who, delivery_log.try_out, shown.endpoint.id)
    post.deliver(worker, open_notifications(worker))

    (hook,) = post.hooks.sent
    assert hook.hook_id == str(notification)
    assert (b"endpoint.test" in hook.body) is (kind is Format.JSON)
    assert [(one.event_type, one.status, one.error) for one in tries(world, who, shown)] == [
        ("endpoint.test", 204, None)
    ]


@pytest.mark.parametrize("who", ["tara", "olga"])
def test_a_webhook_can_be_tested_at_most_ten_times_a_minute(
    world: World, later: ShiftedClock, reach: WebhookUrlPolicy, who: str
) -> None:
    shown, other = added(world, reach, who), added(world, reach, who)
    shifted = World(Database(world.db.engine, world.db.schedule, later), world.tenant, world.people)

    def tried(seconds: float, which: WebhookWithSecret = shown) -> object:
        later.shift = timedelta(seconds=seconds)
        return acts(shifted, who, delivery_log.try_out, which.endpoint.id)

    for number in range(10):
        tried(number * 5)
    with pytest.raises(TooMany) as refused:
        tried(50)
    tried(50, other)
    tried(60.5)
    with pytest.raises(TooMany):
        tried(61)

    assert 9 <= refused.value.facts["retry_after"] <= 10
    calls = read(world.db, "SELECT endpoint_id FROM notifications WHERE template = 'endpoint_tested'")
    assert Counter(row.endpoint_id for row in calls) == {shown.endpoint.id: 11, other.endpoint.id: 1}


@pytest.mark.far
def test_repeated_webhook_calls_count_as_test_calls(
    world: World, worker: Database, post: Postbag, reach: WebhookUrlPolicy
) -> None:
    shown = added(world, reach, event_types=("request.approved",))
    acts(world, "tara", delivery_log.try_out, shown.endpoint.id)
    post.deliver(worker, open_notifications(worker))
    (one,) = tries(world, "tara", shown)
    for _ in range(9):
        acts(world, "tara", delivery_log.redeliver, one.id)
        with pytest.raises(StillWaiting):
            acts(world, "tara", delivery_log.redeliver, one.id)
        post.deliver(worker, open_notifications(worker))

    for call, target in ((delivery_log.redeliver, one.id), (delivery_log.try_out, shown.endpoint.id)):
        with pytest.raises(TooMany, match="at most 10 times a minute"):
            acts(world, "tara", call, target)

    assert open_notifications(worker) == []
    assert len(tries(world, "tara", shown)) == 10


def test_concurrent_webhook_tests_are_counted_individually(
    world: World, pool: ThreadPoolExecutor, reach: WebhookUrlPolicy
) -> None:
    shown = added(world, reach)
    for _ in range(7):
        acts(world, "tara", delivery_log.try_out, shown.endpoint.id)

    answers = at_once(pool, *[lambda: acts(world, "tara", delivery_log.try_out, shown.endpoint.id)] * 6)

    assert Counter(type(answer).__name__ for answer in answers) == {"UUID": 3, "TooMany": 3}


@pytest.mark.parametrize("who", ["tara", "olga"])
def test_a_webhook_call_can_be_repeated_under_the_same_id(
    world: World, worker: Database, post: Postbag, reach: WebhookUrlPolicy, who: str
) -> None:
    shown = added(world, reach, who, event_types=("request.approved",))
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    post.deliver(worker, open_notifications(worker))
    (one,) = tries(world, who, shown)

    again = acts(world, who, delivery_log.redeliver, one.id)
    with pytest.raises(StillWaiting):
        acts(world, who, delivery_log.redeliver, one.id)
    post.deliver(worker, open_notifications(worker))
    acts(world, who, delivery_log.redeliver, one.id)
    post.deliver(worker, open_notifications(worker))

    assert again == one.notification_id
    assert {hook.hook_id for hook in post.hooks.sent} == {str(one.notification_id)}
    assert len(post.hooks.sent) == len(tries(world, who, shown)) == 3
    assert last_change(world.db).action == "delivery_repeated"


def test_a_dead_notification_can_be_sent_again_if_enough_time_is_left(
    world: World, sender: Database, later: ShiftedClock, post: Postbag, reach: WebhookUrlPolicy
) -> None:
    shown = added(world, reach)
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    fan_out_all(as_sender(world.db))
    write(unbound(world.db), "UPDATE notifications SET closed_at = now(), outcome = 'dead', attempts = 40, "
          "until_at = now() WHERE endpoint_id IS NOT NULL AND template = 'active'")  # fmt: skip
    write(
        unbound(world.db),
        "INSERT INTO deliveries (id, notification_id, endpoint_id, event_type, at, took_ms, answer, error) "
        "SELECT uuidv7(), id, endpoint_id, 'request.approved', now(), 1, '', 'time' "
        "FROM notifications WHERE attempts = 40",
    )
    (one,) = tries(world, "tara", shown)
    later.shift = timedelta(hours=30)
    shifted = World(Database(world.db.engine, world.db.schedule, later), world.tenant, world.people)

    acts(shifted, "tara", delivery_log.redeliver, one.id)
    post.deliver(sender, [one.notification_id])

    assert [hook.hook_id for hook in post.hooks.sent] == [str(one.notification_id)]


@pytest.mark.far
def test_a_webhook_call_about_a_settled_request_can_be_repeated(
    world: World, worker: Database, post: Postbag, reach: WebhookUrlPolicy
) -> None:
    shown = added(world, reach, event_types=("request.submitted",))
    request = world.submit()
    post.deliver(worker, open_notifications(worker))
    (one,) = tries(world, "tara", shown)
    acts(world, "tara", delivery_log.redeliver, one.id)
    post.deliver(worker, open_notifications(worker))
    world.act("ann", Action.DENY, request.id)

    acts(world, "tara", delivery_log.redeliver, one.id)
    post.deliver(worker, open_notifications(worker))

    assert [hook.hook_id for hook in post.hooks.sent] == [str(one.notification_id)] * 3


def test_the_database_refuses_repeated_webhook_calls_by_people_of_the_wrong_side(
    world: World, worker: Database, post: Postbag, reach: WebhookUrlPolicy
) -> None:
    added(world, reach, event_types=("request.submitted",))
    added(world, reach, "olga", event_types=("request.submitted",))
    other = World.make(world.db)
    world.people["zack"] = other.people["tara"]
    world.submit()
    post.deliver(worker, open_notifications(worker))
    rows = read(world.db, "SELECT d.id, h.tenant_id IS NULL AS is_vendors FROM deliveries d "
                "JOIN endpoints h ON h.id = d.endpoint_id")  # fmt: skip

    for who, caller in world.people.items():
        for row in rows:
            with world.db.transaction() as session:
                authentication.enter(session, caller)
                values = {"delivery": row.id, "moment": datetime.now(UTC)}
                answers = session.execute(delivery_log.REOPEN, values).all()
                session.orm.rollback()
            assert bool(answers) is (who == ("olga" if row.is_vendors else "tara")), who


def test_webhook_answers_are_readable_only_on_the_side_of_the_webhook(
    world: World, worker: Database, post: Postbag, reach: WebhookUrlPolicy
) -> None:
    added(world, reach)
    added(world, reach, "olga")
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    post.deliver(worker, open_notifications(worker))
    sides = "SELECT d.id, n.request_id, coalesce(h.tenant_id, m.tenant_id) IS NULL AS is_vendors FROM deliveries d "
    sides += "LEFT JOIN endpoints h ON h.id = d.endpoint_id JOIN notifications n ON n.id = d.notification_id "
    sides += "LEFT JOIN memberships m ON m.person_id = n.person_id"
    rows = read(world.db, sides)
    of_the_vendor = {row.id for row in rows if row.is_vendors}
    customers = {row.id for row in rows} - of_the_vendor
    vendors = {row.id for row in rows if row.is_vendors and row.request_id}

    seen = {}
    for who in ("max", "ann", "tara", "eve"):
        with as_caller(world.db, world.people[who]) as connection:
            seen[who] = set(connection.exec_driver_sql("SELECT id FROM deliveries").scalars())

    assert seen["max"] == vendors
    assert seen["ann"] == seen["tara"] == customers
    assert seen["eve"] <= vendors
    assert vendors
    assert customers
