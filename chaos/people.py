"""Who is on the stage: four customers with their people and the vendor's, short windows, and where webhooks go."""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from cli import sample
from cli.owner_transaction import as_owner
from cli.stack import StackPlan
from config.catalogue_file import sample_catalogue
from harness.network import EventLoopThread
from harness.people import add_endpoint
from harness.webhook_receiver import WebhookReceiver
from lockbox.identity import tenants
from lockbox.identity.roles import Mode
from lockbox.requests.policy_rules import Policy

ANSWER_SECONDS = 4
ACCESS_SECONDS = 4
CALM_SECONDS = 3600
QUICK: dict[str, object] = {
    "vendor_review": False,
    "review_window": ANSWER_SECONDS,
    "approval_window": ANSWER_SECONDS,
    "access_ceiling": ACCESS_SECONDS,
    "approval_reminders": (),
    "review_reminders": (),
    "report_on_close": False,
}
TALKATIVE: dict[str, object] = {
    "vendor_review": True,
    "quorum": 2,
    "approval_reminders": (50,),
    "review_reminders": (50,),
    "closing_warning": 1,
    "report_on_close": True,
}
REASON = f"Quagga {secrets.token_hex(4)}: the mailbox does not open"
COMMENT = f"Okapi {secrets.token_hex(4)}: as discussed"


@dataclass(frozen=True)
class ChaosCustomer:
    """One customer: its name and id, everybody's ids and tokens, and how much its people have to say.

    Each approval of the quorum is one of `approvers`; `is_reviewed` is whether a manager of the vendor comes first,
    who alone opens the window where `approvers` is empty. `is_calm` is whether its windows are an hour.
    """

    slug: str
    tenant_id: UUID
    people: Mapping[str, UUID]
    tokens: Mapping[str, str]
    approvers: tuple[str, ...]
    is_reviewed: bool
    is_calm: bool = False


@dataclass(frozen=True)
class ChaosPeople:
    """Everybody. `hooks` are the endpoints: the vendor's first, then one for each customer."""

    quick: Sequence[ChaosCustomer]
    calm: ChaosCustomer
    hooks: Sequence[WebhookReceiver]

    @property
    def customers(self) -> Sequence[ChaosCustomer]:
        """All customers."""
        return (*self.quick, self.calm)

    def private(self) -> Iterator[str]:
        """Yield what may stand in no log and in no message: tokens, secrets, reasons, comments and addresses."""
        yield from (REASON.split(":", maxsplit=1)[0], COMMENT.split(":", maxsplit=1)[0], "@vendor.example")
        for customer in self.customers:
            yield f"@{customer.slug}.example"
            yield from (token.rpartition("_")[2] for token in customer.tokens.values())
        yield from (hook.secret.rpartition("_")[2] for hook in self.hooks)


def gather(plan: StackPlan, loop: EventLoopThread) -> ChaosPeople:
    """Write everybody into the database, and open the endpoints."""
    end = secrets.token_hex(3)
    hooks = [WebhookReceiver(path="/chaos/") for _ in range(5)]
    for hook in hooks:
        loop.do(hook.open())
    scripts = (
        ("enforcing", QUICK, Mode.ENFORCE, ("ann",), False, False),
        ("talkative", QUICK | TALKATIVE, Mode.ENFORCE, ("ann", "amir"), True, False),
        ("observing", QUICK, Mode.OBSERVE, (), True, False),
        ("calm", QUICK | {"approval_window": CALM_SECONDS}, Mode.ENFORCE, ("ann",), False, True),
    )
    customers = []
    with as_owner(plan.owner_database_url) as session:
        hooks[0].secret = add_endpoint(session, hooks[0].url, None)
        for (name, terms, mode, approvers, reviewed, calm), hook in zip(scripts, hooks[1:], strict=True):
            slug, policy = f"{name}-{end}", Policy.model_validate(terms)
            tenant = tenants.add(session, slug, name.capitalize(), policy=policy.model_dump(mode="json"), mode=mode)
            found = sample.seed(
                session,
                tenant=slug,
                policy=policy,
                environment=plan.environment,
                services=sample_catalogue().services,
            )
            hook.secret = add_endpoint(session, hook.url, tenant.id)
            customers.append(ChaosCustomer(slug, tenant.id, found.people, found.tokens, approvers, reviewed, calm))
    *quick, calm_db = customers
    return ChaosPeople(quick, calm_db, hooks)
