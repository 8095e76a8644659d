"""The versions of tenants' policies: the one that holds, the one that judged a request, and the stricter of both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import Session

from lockbox.notices.letters import Wording
from lockbox.people.models import Tenant
from lockbox.people.roles import Mode
from lockbox.requests.merging import merged, stricter, terms_for
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy import stricter_mode
from lockbox.requests.rules import Ask, Policy, effective_mode
from lockbox.requests.terms import Reason, Terms

MOST_KEPT = 1024
Hits = tuple[int, ...]
"""The places of those rules of a policy that match an ask."""

READ = text("SELECT body::text FROM policies WHERE tenant_id = :tenant_id AND version = :version")
OWN_AND_TODAYS = text("""
SELECT own.body::text AS own, today.body::text AS today, t.policy_version AS todays, t.mode,
    t.suspended
FROM tenants t JOIN policies own ON own.tenant_id = t.id AND own.version = :version
JOIN policies today ON today.tenant_id = t.id AND today.version = t.policy_version
WHERE t.id = :tenant_id
""")
ASKS = text("""
SELECT r.id, r.tenant_id, r.policy_version, r.service, r.actions, r.reason_code, r.resources,
    t.policy_version AS todays, t.mode AS tenant_mode
FROM requests r JOIN tenants t ON t.id = r.tenant_id WHERE r.id = ANY(:ids)
""")
READ_MANY = text("""
SELECT p.tenant_id, p.version, p.body::text AS body FROM policies p
JOIN unnest(CAST(:tenants AS uuid[]), CAST(:versions AS integer[])) AS w (tenant_id, version)
    ON w.tenant_id = p.tenant_id AND w.version = p.version
""")
OF_REQUESTS = text("""
SELECT r.id, r.service, r.actions, r.reason_code, r.resources, own.body::text AS own, today.body::text AS today
FROM requests r JOIN tenants t ON t.id = r.tenant_id
JOIN policies own ON own.tenant_id = t.id AND own.version = r.policy_version
JOIN policies today ON today.tenant_id = t.id AND today.version = t.policy_version
WHERE r.id = ANY(:ids)
""")


@dataclass(frozen=True)
class Ruling:
    """The terms that a request meets now, and who is in the groups that they name.

    `today` is the tenant's policy now, `version` its version, and `mode` the tenant's own mode now.
    `is_suspended` is whether the vendor has suspended the tenant.
    """

    terms: Terms
    groups: Mapping[str, tuple[UUID, ...]]
    version: int
    today: Policy
    mode: Mode
    is_suspended: bool = False

    def mode_for(self, request: AccessRequest, at: datetime) -> tuple[Mode, datetime | None]:
        """Return the mode in which a request leaves the vendor's review, and the end of the consent that it rests on.

        The mode is the stricter of the one at submit and today's. Consent on which the request rests and that has
        ended, or was taken back or shortened, leaves `enforce`.
        """
        today = effective_mode(self.mode, self.today, at)
        until, given = request.consent_until, self.today.consent.until if self.today.consent else None
        mode = stricter_mode(request.mode, today)
        if mode is Mode.ENFORCE or (until and (given is None or at >= min(until, given))):
            return Mode.ENFORCE, None
        if until is None and today is self.mode:
            return mode, None
        return mode, min(end for end in (until, given) if end)


def current(session: Session, tenant: Tenant) -> Policy:
    """Return the policy that holds for a tenant."""
    return at_version(session, tenant.id, tenant.policy_version)


def at_version(session: Session, tenant_id: UUID, version: int) -> Policy:
    """Return one version of a tenant's policy."""
    return parsed(_body(session, tenant_id, version))


def todays(session: Session, tenant: Tenant, ask: Ask) -> tuple[Policy, Terms]:
    """Return the policy that holds for a tenant, and the terms that an ask meets under it."""
    body = _body(session, tenant.id, tenant.policy_version)
    return parsed(body), _terms(body, _hits(body, ask))


def ruling(session: Session, request: AccessRequest) -> Ruling:
    """Return what a request meets: the stricter of the version that judged it and today's.

    A group is who is in it today; one that is gone today is who was in it then, so that taking a group away cannot
    take away the need to ask it.
    """
    values = {"tenant_id": request.tenant_id, "version": request.policy_version}
    row = session.connection().execute(OWN_AND_TODAYS, values).one()
    ruled = _ruled(row.own, row.today, row.todays, Mode(row.mode), request)
    return replace(ruled, is_suspended=row.suspended)


def under(session: Session, tenant: Tenant, request: AccessRequest, policy: Policy) -> Ruling:
    """Return what a request would meet if that policy were the tenant's today; see `ruling`."""
    own, ask = at_version(session, request.tenant_id, request.policy_version), _ask(request)
    terms = stricter(terms_for(own, ask), terms_for(policy, ask))
    return _ruling(own, policy, tenant.policy_version + 1, tenant.mode, terms)


def rulings(session: Session, request_ids: Sequence[UUID]) -> dict[UUID, Ruling]:
    """Return what each of these requests meets now; each policy is read and each ask is judged once for all."""
    rows = session.connection().execute(ASKS, {"ids": list(request_ids)}).all()
    versions = {(row.tenant_id, version) for row in rows for version in (row.policy_version, row.todays)}
    values = {"tenants": [tenant_id for tenant_id, _ in versions], "versions": [number for _, number in versions]}
    found = session.connection().execute(READ_MANY, values)
    bodies = {(row.tenant_id, row.version): row.body for row in found}
    judged: dict[tuple[object, ...], Ruling] = {}
    answers = {}
    for row in rows:
        ask = (row.service, tuple(row.actions), row.reason_code, tuple(row.resources))
        key = (row.tenant_id, row.policy_version, row.todays, ask)
        if key not in judged:
            own, today = (bodies[row.tenant_id, version] for version in (row.policy_version, row.todays))
            judged[key] = _ruled(own, today, row.todays, Mode(row.tenant_mode), row)
        answers[row.id] = judged[key]
    return answers


def wordings(session: Session, request_ids: Sequence[UUID]) -> dict[UUID, Wording]:
    """Return what mails about these requests may say, by the terms that each meets now."""
    found = {}
    for row in session.connection().execute(OF_REQUESTS, {"ids": list(request_ids)}):
        terms = _stricter(row.own, row.today, _ask(row))
        found[row.id] = Wording(terms.mail_link, terms.mail_justification, terms.report_on_close)
    return found


def _ruled(own: str, today: str, version: int, mode: Mode, asked: AccessRequest | Row[Any]) -> Ruling:
    return _ruling(parsed(own), parsed(today), version, mode, _stricter(own, today, _ask(asked)))


def _ruling(own: Policy, today: Policy, version: int, mode: Mode, terms: Terms) -> Ruling:
    return Ruling(terms, {**own.groups, **today.groups}, version, today, mode)


def _ask(asked: AccessRequest | Row[Any]) -> Ask:
    return Ask(asked.service, tuple(asked.actions), Reason(asked.reason_code), tuple(asked.resources))


def _stricter(own: str, today: str, ask: Ask) -> Terms:
    return _met(own, _hits(own, ask), today, _hits(today, ask))


def _hits(body: str, ask: Ask) -> Hits:
    return tuple(place for place, rule in enumerate(parsed(body).rules) if rule.match.matches(ask))


def _body(session: Session, tenant_id: UUID, version: int) -> str:
    body: str = session.connection().execute(READ, {"tenant_id": tenant_id, "version": version}).scalar_one()
    return body


# To merge terms takes longer than to read them, and few texts and few sets of rules stand behind many asks.
@lru_cache(maxsize=MOST_KEPT)
def _met(own: str, own_hits: Hits, today: str, todays_hits: Hits) -> Terms:
    terms = _terms(own, own_hits)
    return terms if (own, own_hits) == (today, todays_hits) else stricter(terms, _terms(today, todays_hits))


@lru_cache(maxsize=MOST_KEPT)
def _terms(body: str, hits: Hits) -> Terms:
    policy = parsed(body)
    return merged(policy, [policy.rules[place] for place in hits])


@lru_cache(maxsize=MOST_KEPT)
def parsed(body: str) -> Policy:
    """Return the policy that a JSON text says; the same text is read once."""
    return Policy.model_validate_json(body)
