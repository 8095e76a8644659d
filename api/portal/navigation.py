"""The sections of the portal's menu. The pages themselves check the rights."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from api.portal import phrases
from lockbox.facts.enumerations import State
from lockbox.identity.roles import TENANT_ROLES, Caller, Role, Side


@dataclass(frozen=True)
class Section:
    path: str
    title: str
    is_for: Callable[[Caller], bool]
    icon: str = ""


def _customer(*roles: Role) -> Callable[[Caller], bool]:
    return lambda caller: caller.side is Side.CUSTOMER and bool(caller.tenants(roles))


def _vendor(*roles: Role) -> Callable[[Caller], bool]:
    return lambda caller: caller.side is Side.VENDOR and caller.holds(*roles)


def _either(*some: Callable[[Caller], bool]) -> Callable[[Caller], bool]:
    return lambda caller: any(one(caller) for one in some)


def _customers(caller: Caller) -> bool:
    return caller.side is Side.CUSTOMER


SECTIONS = (
    Section("/waiting", phrases.APPROVALS, _customers, "inbox"),
    Section("/review", phrases.REVIEWS, _vendor(Role.MANAGER), "clipboard-check"),
    Section("/ask", phrases.REQUEST_ACCESS, _vendor(Role.ENGINEER), "key-round"),
    Section("/mine", phrases.MY_REQUESTS, _vendor(Role.ENGINEER), "send"),
    Section(
        "/open", phrases.OPEN_WINDOWS, _either(_customers, _vendor(Role.MANAGER, Role.VENDOR_AUDITOR)), "door-open"
    ),
    Section("/requests", phrases.HISTORY, _either(_customers, _vendor(Role.MANAGER, Role.VENDOR_AUDITOR)), "history"),
    Section(
        "/audit-log",
        phrases.AUDIT_LOG,
        _either(_customer(Role.AUDITOR, Role.TENANT_ADMIN), _vendor(Role.VENDOR_AUDITOR)),
        "scroll-text",
    ),
    Section(
        "/statistics",
        phrases.STATISTICS,
        _either(_customer(Role.AUDITOR, Role.TENANT_ADMIN), _vendor(Role.VENDOR_AUDITOR)),
        "chart-column",
    ),
    Section("/tenants", phrases.ORGANISATION, _customer(*TENANT_ROLES), "building-2"),
    Section("/operations", phrases.OPERATIONS, _vendor(Role.OPERATOR), "activity"),
    Section("/gates", phrases.GATES, _vendor(Role.OPERATOR, Role.VENDOR_AUDITOR), "shield"),
    Section("/access-review", phrases.ACCESS_REVIEW, _vendor(Role.OPERATOR, Role.VENDOR_AUDITOR), "users-round"),
    Section("/data", phrases.DATA, _vendor(Role.OPERATOR, Role.VENDOR_AUDITOR), "lock"),
    Section("/exclusions", phrases.EXCLUSIONS, _vendor(Role.OPERATOR, Role.VENDOR_AUDITOR), "lock-open"),
)
EVERYBODYS = Section("/requests", phrases.HISTORY, _customers)
ACCOUNT = Section("/account", phrases.YOUR_ACCOUNT, _vendor(Role.SYSTEM))
LOG = "/audit-log"
AUDITORS = frozenset({Role.AUDITOR, Role.VENDOR_AUDITOR})


def of(caller: Caller) -> Iterable[Section]:
    return [section for section in SECTIONS if section.is_for(caller)]


def section_of(caller: Caller, state: State, *, is_own: bool) -> str:
    listed = {
        State.REVIEWING: "/review",
        State.PENDING: "/waiting",
        State.ACTIVE: "/open",
    }
    wanted = ("/mine" if is_own else listed.get(state), EVERYBODYS.path)
    seen = [section.path for section in of(caller)]
    return next((path for path in wanted if path in seen), seen[0] if seen else EVERYBODYS.path)


def first(caller: Caller) -> Section:
    seen = [section for section in (*SECTIONS, ACCOUNT) if section.is_for(caller)]
    if caller.standings and {standing.role for standing in caller.standings} <= AUDITORS:
        seen.sort(key=lambda section: section.path != LOG)
    return seen[0] if seen else EVERYBODYS


def home(caller: Caller) -> str:
    return first(caller).path
