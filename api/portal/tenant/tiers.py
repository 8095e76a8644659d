"""The page of groups, tiers and stages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Form, Request, Response
from pydantic import TypeAdapter, ValidationError

from api import browser
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal import form_errors, phrases
from api.portal.pages import REFUSED, TAG, FormContextDep
from api.portal.tenant.policy import PolicyVersionField, preview_page
from api.portal.tenant.policy_form import NUMBER, checked, percents
from api.portal.tenant_admin import TenantAdminPage, tenant_admin_page
from api.schemas.parts import Slug
from lockbox import mistakes
from lockbox.admin import policies
from lockbox.errors import LockboxError
from lockbox.identity.roles import Role
from lockbox.notifications.policy_wording import TERMS
from lockbox.requests.policy_parts import FIRST_STEP, MOST_APPROVALS, MOST_STEPS, MOST_TIERS, GroupName
from lockbox.requests.policy_rules import MOST_GROUPS, Policy

router = CallRouter(prefix="/tenants/{slug}/tiers", tags=[TAG], include_in_schema=False)

MOST_PLACES = 2_000
ESCALATION = "escalation"
GROUP_NAMES = TypeAdapter[str](GroupName)

Column = Annotated[list[str], Form(max_length=MOST_GROUPS + 1)]
Places = Annotated[list[str], Form(max_length=MOST_PLACES)]


@dataclass(frozen=True)
class TierRow:
    """`quorum` of the people must approve; `step` is the step in which they are asked."""

    name: str = ""
    people: frozenset[str] = frozenset()
    tier: str = "0"
    quorum: str = "0"
    step: str = str(FIRST_STEP)


@dataclass(frozen=True)
class TierForm:
    """A row for each group, and an empty row for a new one.

    `escalation`: when later tiers are asked, in percent of the approval window.
    """

    rows: Sequence[TierRow]
    escalation: str

    @classmethod
    def of(cls, policy: Policy) -> "TierForm":
        tiers = {group: number for number, tier in enumerate(policy.tiers, 1) for group in tier}
        quorums = {stage.group: stage.quorum for stage in policy.stages}
        steps = {stage.group: stage.order for stage in policy.stages}
        rows = [
            TierRow(
                name,
                frozenset(map(str, people)),
                str(tiers.get(name, 0)),
                str(quorums.get(name, 0)),
                str(steps.get(name, FIRST_STEP)),
            )
            for name, people in policy.groups.items()
        ]
        return cls([*rows, TierRow()], ", ".join(map(str, policy.escalation)))

    def onto(self, policy: Policy) -> Policy:
        """A group without a name is ignored."""
        rows = [(number, row) for number, row in enumerate(self.rows) if row.name.strip()]
        wrong = [*self._misnamed(), *(one for number, row in rows for one in _misread(number, row))]
        said = policy.model_dump(mode="json")
        try:
            said["escalation"] = percents(self.escalation)
        except ValueError as error:
            wrong.append((ESCALATION, str(error)))
        if wrong:
            raise form_errors.rejected(phrases.LOOK_AGAIN, wrong)
        return checked(said | _said([row for _, row in rows]))

    def _misnamed(self) -> Iterator[tuple[str, str]]:
        names = [row.name.strip() for row in self.rows]
        for number, name in enumerate(names):
            if name and name in names[:number]:
                yield f"group-{number}", phrases.SAME_GROUP_NAME
            elif not name and self.rows[number].people:
                yield f"group-{number}", phrases.NO_GROUP_NAME
            elif name and (why := _why_no_name(name)):
                yield f"group-{number}", phrases.BAD_GROUP_NAME.format(name=name, why=why)


def _said(rows: Sequence[TierRow]) -> dict[str, Any]:
    tiers: list[list[str]] = [[] for _ in range(MOST_TIERS)]
    stages = []
    for row in rows:
        tier, quorum, step = (_number(text, most) for _, text, _, most in _columns(row))
        if tier:
            tiers[tier - 1].append(row.name.strip())
        if quorum:
            stages.append({"group": row.name.strip(), "quorum": quorum, "order": step or FIRST_STEP})
    return {
        "groups": {row.name.strip(): sorted(row.people) for row in rows},
        # Empty tiers are skipped, so the tiers after them move up.
        "tiers": [tier for tier in tiers if tier],
        "stages": stages,
    }


def _columns(row: TierRow) -> Sequence[tuple[str, str, str, int]]:
    return (
        ("tier", row.tier, phrases.TIER_ASKED, MOST_TIERS),
        ("quorum", row.quorum, phrases.TIER_AGREES, MOST_APPROVALS),
        ("step", row.step, phrases.TIER_STEP, MOST_STEPS),
    )


def _misread(number: int, row: TierRow) -> Iterator[tuple[str, str]]:
    for column, text, label, most in _columns(row):
        try:
            _number(text, most)
        except ValueError:
            name = row.name.strip()
            yield f"{column}-{number}", phrases.NO_NUMBER_OF_GROUP.format(label=label, name=name, most=most)


def _number(text: str, most: int) -> int:
    said = text.strip() or "0"
    if not NUMBER.fullmatch(said) or int(said) > most:
        raise ValueError(said)
    return int(said)


def _why_no_name(name: str) -> str:
    try:
        GROUP_NAMES.validate_python(name)
    except ValidationError as error:
        return mistakes.advice(error)
    return ""


def places_of(form: TierForm) -> dict[str, str]:
    """HTML ids by field."""
    numbers = range(len(form.rows))
    places = {ESCALATION: ESCALATION} | {
        f"groups.{row.name.strip()}": f"g-{one}" for one, row in enumerate(form.rows)
    }
    of_columns = {f"{column}-{number}" for number in numbers for column in ("tier", "quorum", "step")}
    last = {f"group-{number}": f"group-{number}" if number == numbers[-1] else f"g-{number}" for number in numbers}
    return {ESCALATION: ESCALATION} | places | {one: one for one in of_columns} | last


async def tier_form(
    group: Column = [],  # noqa: B006 - FastAPI copies it
    tier: Column = [],  # noqa: B006 - likewise
    quorum: Column = [],  # noqa: B006 - likewise
    step: Column = [],  # noqa: B006 - likewise
    people: Places = [],  # noqa: B006 - likewise
    gone: Column = [],  # noqa: B006 - likewise
    escalation: Annotated[str, Form(max_length=200)] = "",
) -> TierForm:
    """Entries with the same index form a group. A person is written as `number:id`, with the index of the group."""
    inside: dict[str, set[str]] = {}
    for place in people:
        number, _, person = place.partition(":")
        inside.setdefault(number, set()).add(person)
    rows = [
        TierRow(
            name[:100],
            frozenset(inside.get(str(number), ())),
            _at(tier, number),
            _at(quorum, number),
            _at(step, number),
        )
        for number, name in enumerate(group)
        if str(number) not in gone
    ]
    return TierForm(rows, escalation)


TierFormDep = Annotated[TierForm, Depends(tier_form)]


@router.get("")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    return _shown(tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug))


@router.post("")
def look(work: FormContextDep, slug: Slug, form: TierFormDep, version: PolicyVersionField = 1) -> Response:
    with work.open() as (session, visitor):
        at = tenant_admin_page(work.request, session, visitor, slug, Role.TENANT_ADMIN)
        held = policies.read(session, visitor.caller, slug)
        try:
            return preview_page(at, form.onto(held.policy), version)
        except REFUSED as refused:
            return _shown(at, refused, form=form, version=version)


def _shown(
    at: TenantAdminPage,
    refused: LockboxError | None = None,
    *,
    form: TierForm | None = None,
    version: int | None = None,
) -> Response:
    held = policies.read(at.session, at.caller, at.tenant.slug)
    everybody, filled = at.members(), form or TierForm.of(held.policy)
    return at.page(
        "tiers",
        refused,
        held=held,
        form=filled,
        wrong=form_errors.by_field(form_errors.mistakes_of(refused)),
        mistakes=form_errors.summary(refused, {**TERMS, "groups": ""}, places_of(filled)),
        version=version or held.edition.version,
        deciders=[one for one in everybody if Role.APPROVER in one.roles or one.is_eligible],
        names={one.person_id: one.name for one in everybody},
        most_tiers=MOST_TIERS,
        most_approvals=MOST_APPROVALS,
        most_steps=MOST_STEPS,
    )


def _at(column: Sequence[str], number: int) -> str:
    return column[number] if number < len(column) else "0"
