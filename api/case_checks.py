"""Ask the ticket system about a case between two tries of a submission, while no transaction is open."""

from config.settings import Settings
from lockbox.requests import case_check
from lockbox.requests.case_check import CaseAdapter
from lockbox.requests.cases import CaseUnchecked
from lockbox.requests.policy_parts import CaseCheck


async def confirmed(chosen: Settings, unchecked: CaseUnchecked) -> CaseCheck:
    """Return what the adapter of the case's ticket system says, with which the submission is tried again.

    Raises:
        CaseNotConfirmed, CaseSystemDown: it is refused for that.
    """
    systems = chosen.catalogue.case_systems
    named = unchecked.question["case_system"] or (next(iter(systems)) if len(systems) == 1 else "")
    system, secret = systems.get(named), chosen.case_adapter_secret
    adapter = CaseAdapter(
        url=system.adapter if system else None,
        secret=secret.get_secret_value() if secret else None,
        allow_http=chosen.webhooks_allow_http,
    )
    unchecked.question["case_system"] = named or None
    return await case_check.check(adapter, unchecked)
