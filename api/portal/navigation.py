"""The sections of the portal's menu: where each leads, and who sees it. The pages check the rights."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from api.portal import phrases
from lockbox.facts.enumerations import State
from lockbox.identity.roles import TENANT_ROLES, Caller, Role, Side


@dataclass(frozen=True)
class Section:
    """An entry of the menu: a path, its title, and who sees it."""

    path: str
    title: str
    is_for: Callable[[Caller], bool]


def _customer(*roles: Role) -> Callable[[Caller], bool]:
    return lambda caller: caller.side is Side.CUSTOMER and bool(caller.tenants(roles))


def _vendor(*roles: Role) -> Callable[[Caller], bool]:
    return lambda caller: caller.side is Side.VENDOR and caller.holds(*roles)


def _either(*some: Callable[[Caller], bool]) -> Callable[[Caller], bool]:
    return lambda caller: any(one(caller) for one in some)


def _customers(caller: Caller) -> bool:
    return caller.side is Side.CUSTOMER


SECTIONS = (
    Section("/waiting", phrases.APPROVALS, _customers),
    Section("/review", phrases.REVIEWS, _vendor(Role.MANAGER)),
    Section("/ask", phrases.REQUEST_ACCESS, _vendor(Role.ENGINEER)),
    Section("/mine", phrases.MY_REQUESTS, _vendor(Role.ENGINEER)),
    Section("/open", phrases.OPEN_WINDOWS, _either(_customers, _vendor(Role.MANAGER, Role.VENDOR_AUDITOR))),
    Section("/requests", phrases.HISTORY, _either(_customers, _vendor(Role.MANAGER, Role.VENDOR_AUDITOR))),
    Section(
        "/audit-log",
        phrases.AUDIT_LOG,
        _either(_customer(Role.AUDITOR, Role.TENANT_ADMIN), _vendor(Role.VENDOR_AUDITOR)),
    ),
    Section(
        "/statistics",
        phrases.STATISTICS,
        _either(_customer(Role.AUDITOR, Role.TENANT_ADMIN), _vendor(Role.VENDOR_AUDITOR)),
    ),
    Section("/tenants", phrases.ORGANISATION, _customer(*TENANT_ROLES)),
    Section("/operations", phrases.OPERATIONS, _vendor(Role.OPERATOR)),
    Section("/gates", phrases.GATES, _vendor(Role.OPERATOR, Role.VENDOR_AUDITOR)),
    Section("/access-review", phrases.ACCESS_REVIEW, _vendor(Role.OPERATOR, Role.VENDOR_AUDITOR)),
    Section("/data", phrases.DATA, _vendor(Role.OPERATOR, Role.VENDOR_AUDITOR)),
    Section("/exclusions", phrases.EXCLUSIONS, _vendor(Role.OPERATOR, Role.VENDOR_AUDITOR)),
)
EVERYBODYS = Section("/requests", phrases.HISTORY, _customers)
ACCOUNT = Section("/account", phrases.YOUR_ACCOUNT, _vendor(Role.SYSTEM))
LOG = "/audit-log"
AUDITORS = frozenset({Role.AUDITOR, Role.VENDOR_AUDITOR})


def of(caller: Caller) -> Iterable[Section]:
    """Return the sections that a person sees."""
    return [section for section in SECTIONS if section.is_for(caller)]


def section_of(caller: Caller, state: State, *, is_own: bool) -> str:
    """Return the path of the section that a request belongs to for a person: where it is listed with its like."""
    listed = {
        State.REVIEWING: "/review",
        State.PENDING: "/waiting",
        State.ACTIVE: "/open",
    }
    wanted = ("/mine" if is_own else listed.get(state), EVERYBODYS.path)
    seen = [section.path for section in of(caller)]
    return next((path for path in wanted if path in seen), seen[0] if seen else EVERYBODYS.path)


def first(caller: Caller) -> Section:
    """Return the section in which a person works: the first they see, or the audit log for those who only audit."""
    seen = [section for section in (*SECTIONS, ACCOUNT) if section.is_for(caller)]
    if caller.standings and {standing.role for standing in caller.standings} <= AUDITORS:
        seen.sort(key=lambda section: section.path != LOG)
    return seen[0] if seen else EVERYBODYS


def home(caller: Caller) -> str:
    """Return a person's home page."""
    return first(caller).path
