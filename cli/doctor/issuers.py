"""Check of identity providers."""

from collections.abc import Iterator

from catalogue.issuers import IdentityProvider
from cli.doctor.findings import DoctorFinding, failure, well
from config.settings import Settings
from lockbox.identity.oidc_providers import IdentityProviders, ProviderUnavailable
from lockbox.safe_http import LOOK_UP_SECONDS, SECONDS, FetchFailed, FetchFailure

CHECK = "Issuers"
PROXY = "LOCKBOX_OUTBOUND_PROXY"
FIXES = {
    FetchFailure.NOT_PUBLIC: "name its network in LOCKBOX_PRIVATE_NETWORKS",
    FetchFailure.NAME: "check its name in LOCKBOX_ISSUERS, or let this machine's resolver know it",
    FetchFailure.CERTIFICATE: "add its authority to the certificates that this machine trusts",
    FetchFailure.ANSWER: "write it as its discovery document does",
    FetchFailure.FORM: "use https on port 443, or on one from 1024 on",
}
REACH = "let this machine reach it"
TENANTS = "a tenant's provider needs a public address: LOCKBOX_PRIVATE_NETWORKS is for the vendor's own"


def check_issuers(settings: Settings) -> Iterator[DoctorFinding]:
    known = IdentityProviders(
        settings.issuers, wait_seconds=LOOK_UP_SECONDS + 2 * SECONDS + 1, route=settings.outbound
    )
    for issuer in settings.issuers:
        try:
            known.metadata(issuer)
            keys = known.keys(issuer, None)
        except ProviderUnavailable as away:
            yield _unavailable(settings, issuer, away)
        else:
            number = len(keys.keys)
            yield well(CHECK, f"{issuer.issuer} answers, with {number} key{'' if number == 1 else 's'}")


def _unavailable(settings: Settings, issuer: IdentityProvider, away: ProviderUnavailable) -> DoctorFinding:
    if away.trouble is FetchFailure.NOT_PUBLIC and issuer.tenant is not None:
        fix = TENANTS
    else:
        fix = FIXES.get(away.trouble, f"{REACH}, by {PROXY} if need be" if not settings.outbound_proxy else REACH)
    why = away.__cause__.reason if isinstance(away.__cause__, FetchFailed) else away.detail
    return failure(CHECK, f"nobody can sign in by {issuer.issuer}: {why}", fix)
