"""A tenant's policy versions, and the effective policy: the stricter of a request's version and today's version."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from catalogue.service_catalogue import Level
from lockbox.database import UnitOfWork
from lockbox.errors import PolicyUnverified
from lockbox.facts.enumerations import Mode, State
from lockbox.identity import row_macs
from lockbox.identity.models import Tenant
from lockbox.identity.row_macs import MarkedRowKind
from lockbox.notifications.request_mail import MailWording
from lockbox.requests.lifecycle import HeldBack
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy import (
    UNVERIFIED,
    Terms,
    customer_decides,
    effective_mode,
    fewest,
    lacking_today,
    longest_window,
    stricter,
    stricter_mode,
)
from lockbox.requests.policy_rules import FACTS, Policy, RequestFacts, merged, terms_for
from lockbox.requests.quorum import has_steps
from lockbox.sql import columns

MOST_KEPT = 1024
MatchingRules = tuple[int, ...]
"""The positions of a policy's rules that match a request."""
MOST_COMPARED = 2_000
"""The most comparisons (patterns times resources) in the event loop; they take two or three milliseconds."""

READ = text("SELECT body::text AS body, mac FROM policies WHERE tenant_id = :tenant_id AND version = :version")
RULED = f"""
ruled AS (
    SELECT own.body::text AS own, own.mac AS own_mac, today.body::text AS today, today.mac AS todays_mac,
        {row_macs.marked_columns(MarkedRowKind.TENANT, "t")},
        (SELECT e.state FROM requests e WHERE e.id = CAST(:extends AS uuid)) AS extended
    FROM tenants t JOIN policies own ON own.tenant_id = t.id AND own.version = :version
    JOIN policies today ON today.tenant_id = t.id AND today.version = t.policy_version
    WHERE t.id = :tenant_id
)"""  # noqa: S608 - ours
"""The part of a statement that reads a tenant and two versions of its policy: the request's version and today's.

It also reads the state of the request that this request extends, if any.
"""
RULED_COLUMNS = f"""ruled.own, ruled.own_mac, ruled.today, ruled.todays_mac, ruled.extended,
    {row_macs.marked_columns(MarkedRowKind.TENANT, "ruled")}"""
OWN_AND_TODAYS = text(f"WITH {RULED} SELECT {RULED_COLUMNS} FROM ruled")  # noqa: S608 - ours
ASKS = text(f"""
SELECT {columns(AccessRequest, "r", "id", "tenant_id", "policy_version", *FACTS)}, t.policy_version AS todays,
    r.extends IS NOT NULL AND NOT ran_to_its_end(r.extends) AS is_outlived
FROM requests r JOIN tenants t ON t.id = r.tenant_id WHERE r.id = ANY(:ids)
""")  # noqa: S608 - ours
READ_MANY = text(f"""
SELECT p.version, p.body::text AS body, p.mac AS policy_mac, {row_macs.marked_columns(MarkedRowKind.TENANT, "t")}
FROM policies p JOIN tenants t ON t.id = p.tenant_id
JOIN unnest(CAST(:tenants AS uuid[]), CAST(:versions AS integer[])) AS w (tenant_id, version)
    ON w.tenant_id = p.tenant_id AND w.version = p.version
""")  # noqa: S608 - ours
OF_REQUESTS = text(f"""
SELECT {columns(AccessRequest, "r", "id", *FACTS)}, own.body::text AS own, today.body::text AS today
FROM requests r JOIN tenants t ON t.id = r.tenant_id
JOIN policies own ON own.tenant_id = t.id AND own.version = r.policy_version
JOIN policies today ON today.tenant_id = t.id AND today.version = t.policy_version
WHERE r.id = ANY(:ids)
""")  # noqa: S608 - ours
AT_START = text("""
SELECT request_id, tenant_id, version, body, mac, before FROM policies_at_start(CAST(:ids AS uuid[]))
""")


@dataclass(frozen=True)
class EffectivePolicy:
    """`groups` are the members of the groups that the terms name. `mode` is the tenant's own mode now.

    `today` is the tenant's policy now, and `version` is its version. If the MAC of the tenant or a policy is invalid,
    `is_verified` is false and no window opens: the mode is `enforce`, and the terms are at least as strict as the
    default terms. `is_outlived` is whether the window that the request extends was ended.
    """

    terms: Terms
    groups: Mapping[str, tuple[UUID, ...]]
    version: int
    today: Policy
    mode: Mode
    is_suspended: bool = False
    is_verified: bool = True
    is_outlived: bool = False

    def mode_for(self, request: AccessRequest, at: datetime) -> tuple[Mode, datetime | None]:
        """Return the mode in which a request leaves the vendor's review, and the end of the consent for this mode.

        The mode is the stricter of the mode at submit and today's mode; it is `enforce` if the consent at submit was
        withdrawn or has ended.
        """
        today = effective_mode(self.mode, self.today.consent, at)
        until, given = request.consent_until, self.today.consent.until if self.today.consent else None
        mode = stricter_mode(request.mode, today)
        if mode is Mode.ENFORCE or (until and (given is None or at >= min(until, given))):
            return Mode.ENFORCE, None
        if until is None and today is self.mode:
            return mode, None
        return mode, min(end for end in (until, given) if end)


def current(session: UnitOfWork, tenant: Tenant) -> Policy:
    """Raises PolicyUnverified."""
    return parsed(_verified(session, tenant))


def verified(session: UnitOfWork, tenant: Tenant) -> Policy | None:
    """The tenant's policy; None if the MAC of the policy or of the tenant's row is invalid."""
    body, is_verified = _todays(session, tenant)
    return parsed(body) if is_verified else None


def at_version(session: UnitOfWork, tenant_id: UUID, version: int) -> Policy:
    """For display only: the MAC is not checked."""
    return parsed(_read(session, tenant_id, version).body)


def todays(
    session: UnitOfWork, tenant: Tenant, body: str, mac: bytes | None, ask: RequestFacts
) -> tuple[Policy, Terms]:
    """Return the policy that `body` holds, and the terms for a request under this policy.

    Raises PolicyUnverified.
    """
    if not (_is_verified(session, tenant) and _holds(session, tenant.id, tenant.policy_version, body, mac)):
        raise PolicyUnverified(UNVERIFIED)
    policy = parsed(body)
    _wait_for_many(session, ask, body)
    return policy, _terms(body, _matching_rules(body, ask))


def effective_policy(session: UnitOfWork, request: AccessRequest) -> EffectivePolicy:
    """A group that was removed after the submission keeps its earlier members.

    The request still needs the group's approval. Other groups have their members of today.
    """
    values = {"tenant_id": request.tenant_id, "version": request.policy_version, "extends": request.extends}
    return effective_policy_in(session, session.execute(OWN_AND_TODAYS, values).one(), request)


def effective_policy_in(
    session: UnitOfWork, row: Row[Any] | SimpleNamespace, request: AccessRequest | Row[Any]
) -> EffectivePolicy:
    _wait_for_many(session, facts_of(request), row.own, row.today)
    ruled = _effective_for_row(row.own, row.today, row.policy_version, Mode(row.mode), request)
    is_verified = (
        _is_verified(session, row)
        and _holds(session, row.id, row.policy_version, row.today, row.todays_mac)
        and _holds(session, row.id, request.policy_version, row.own, row.own_mac)
    )
    is_outlived = request.extends is not None and row.extended != State.ACTIVE
    met = ruled if is_verified else _unverified(ruled)
    return replace(met, is_suspended=row.suspended, is_outlived=is_outlived)


def effective_policy_under(
    session: UnitOfWork, tenant: Tenant, request: AccessRequest, policy: Policy
) -> EffectivePolicy:
    own, ask = at_version(session, request.tenant_id, request.policy_version), facts_of(request)
    terms = stricter(terms_for(own, ask), terms_for(policy, ask))
    return _effective_policy(own, policy, tenant.policy_version + 1, tenant.mode, terms)


def effective_policies(session: UnitOfWork, request_ids: Sequence[UUID]) -> dict[UUID, EffectivePolicy]:
    rows = session.execute(ASKS, {"ids": list(request_ids)}).all()
    versions = {(row.tenant_id, version) for row in rows for version in (row.policy_version, row.todays)}
    values = {"tenants": [tenant_id for tenant_id, _ in versions], "versions": [number for _, number in versions]}
    found = session.execute(READ_MANY, values).all()
    bodies = {(row.id, row.version): row.body for row in found}
    modes = {row.id: Mode(row.mode) for row in found}
    doubted = {
        (row.id, row.version)
        for row in found
        if not (_is_verified(session, row) and _holds(session, row.id, row.version, row.body, row.policy_mac))
    }
    answered: dict[tuple[object, ...], EffectivePolicy] = {}
    answers = {}
    for row in rows:
        ask = json.dumps([getattr(row, name) for name in FACTS], sort_keys=True)
        key = (row.tenant_id, row.policy_version, row.todays, ask)
        if key not in answered:
            own, today = (bodies[row.tenant_id, version] for version in (row.policy_version, row.todays))
            ruled = _effective_for_row(own, today, row.todays, modes[row.tenant_id], row)
            is_doubted = not doubted.isdisjoint((row.tenant_id, one) for one in (row.policy_version, row.todays))
            answered[key] = _unverified(ruled) if is_doubted else ruled
        answers[row.id] = replace(answered[key], is_outlived=row.is_outlived)
    return answers


def held_back(session: UnitOfWork, requests: Iterable[AccessRequest]) -> dict[UUID, HeldBack]:
    """Return which windows with a later start are held back by the policy that was in force when they began.

    A policy with an invalid MAC holds back all of its windows.
    """
    later = {request.id: request for request in requests if request.opens_at is not None}
    rows = session.execute(AT_START, {"ids": list(later)}).all() if later else ()
    found = {}
    for row in rows:
        if not _holds(session, row.tenant_id, row.version, row.body, row.mac):
            found[row.request_id] = HeldBack.POLICY_UNVERIFIED
        elif _is_outgrown(later[row.request_id], row.body, row.before):
            found[row.request_id] = HeldBack.STRICTER_POLICY
    return found


def _is_outgrown(request: AccessRequest, body: str, before: str) -> bool:
    ask = facts_of(request)
    terms, earlier = (_terms(one, _matching_rules(one, ask)) for one in (body, before))
    lasts = request.deadline_at - (request.opens_at or request.deadline_at)
    agreed = {stage.group: stage.quorum for stage in earlier.stages}
    needs_more = terms.quorum > request.quorum or any(agreed.get(one.group, 0) < one.quorum for one in terms.stages)
    return (
        bool(lacking_today(request, terms, request.timing))
        or lasts > timedelta(seconds=longest_window(request.access_window, terms, request.timing))
        or fewest(request.max_uses, terms.max_uses) != request.max_uses
        or (terms.vendor_review and not earlier.vendor_review)
        or (customer_decides(request.mode) and (needs_more or terms.approve_means > request.approve_means))
    )


def wordings(session: UnitOfWork, request_ids: Sequence[UUID]) -> dict[UUID, MailWording]:
    found = {}
    for row in session.execute(OF_REQUESTS, {"ids": list(request_ids)}):
        terms = _stricter(row.own, row.today, facts_of(row))
        wording = MailWording(terms.mail_link, terms.mail_justification, terms.report_on_close, _steps(terms))
        found[row.id] = wording
    return found


def _steps(terms: Terms) -> Sequence[Sequence[tuple[int, str]]]:
    if not has_steps(terms.stages):
        return ()
    orders = sorted({stage.order for stage in terms.stages})
    return [[(stage.quorum, stage.group) for stage in terms.stages if stage.order == order] for order in orders]


def _effective_for_row(
    own: str, today: str, version: int, mode: Mode, asked: AccessRequest | Row[Any]
) -> EffectivePolicy:
    return _effective_policy(parsed(own), parsed(today), version, mode, _stricter(own, today, facts_of(asked)))


def _effective_policy(own: Policy, today: Policy, version: int, mode: Mode, terms: Terms) -> EffectivePolicy:
    return EffectivePolicy(terms, {**own.groups, **today.groups}, version, today, mode)


def facts_of(asked: AccessRequest | Row[Any]) -> RequestFacts:
    return RequestFacts.of(asked, Level(asked.level) if asked.level else None, asked)


def _stricter(own: str, today: str, ask: RequestFacts) -> Terms:
    matching = _matching_rules(own, ask)
    return _met(own, matching, today, matching if today == own else _matching_rules(today, ask))


def _wait_for_many(session: UnitOfWork, ask: RequestFacts, *bodies: str) -> None:
    """Take a long comparison of policies out of the event loop, where it would block other calls."""
    patterns = sum(len(rule.match.resources) for body in set(bodies) for rule in parsed(body).rules)
    if len(ask.resources) * patterns > MOST_COMPARED:
        session.wait()


def _matching_rules(body: str, ask: RequestFacts) -> MatchingRules:
    return tuple(place for place, rule in enumerate(parsed(body).rules) if rule.match.matches(ask))


def _read(session: UnitOfWork, tenant_id: UUID, version: int) -> Row[Any]:
    return session.execute(READ, {"tenant_id": tenant_id, "version": version}).one()


def _todays(session: UnitOfWork, tenant: Tenant) -> tuple[str, bool]:
    row = _read(session, tenant.id, tenant.policy_version)
    is_verified = _is_verified(session, tenant)
    return row.body, is_verified and _holds(session, tenant.id, tenant.policy_version, row.body, row.mac)


def _verified(session: UnitOfWork, tenant: Tenant) -> str:
    body, is_verified = _todays(session, tenant)
    if not is_verified:
        raise PolicyUnverified(UNVERIFIED)
    return body


def _is_verified(session: UnitOfWork, tenant: Tenant | Row[Any] | SimpleNamespace) -> bool:
    return row_macs.is_believed(session, tenant.mac, row_macs.tenant(tenant), tenant.id)


def _holds(session: UnitOfWork, tenant_id: UUID, version: int, body: str, mac: bytes | None) -> bool:
    return row_macs.is_believed(session, mac, row_macs.policy(tenant_id, version, body), tenant_id)


def _unverified(ruled: EffectivePolicy) -> EffectivePolicy:
    return replace(ruled, terms=stricter(ruled.terms, Terms()), mode=Mode.ENFORCE, is_verified=False)


# Merging terms takes longer than reading them, and many requests share few policies and few sets of matching rules.
@lru_cache(maxsize=MOST_KEPT)
def _met(own: str, own_hits: MatchingRules, today: str, todays_hits: MatchingRules) -> Terms:
    terms = _terms(own, own_hits)
    return terms if (own, own_hits) == (today, todays_hits) else stricter(terms, _terms(today, todays_hits))


@lru_cache(maxsize=MOST_KEPT)
def _terms(body: str, hits: MatchingRules) -> Terms:
    policy = parsed(body)
    return merged(policy, [policy.rules[place] for place in hits])


@lru_cache(maxsize=MOST_KEPT)
def parsed(body: str) -> Policy:
    return Policy.model_validate_json(body)
