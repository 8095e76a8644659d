"""`lockbox doctor` fetches each issuer's discovery document and keys, and says what keeps people from signing in."""

import pytest

from cli.doctor.findings import DoctorFinding, FindingLevel
from cli.doctor.issuers import check_issuers
from config.issuers import IdentityProvider
from config.settings import Settings
from tests.oidc_issuer import DISCOVERY, HTML, LocalIssuer, local_issuer
from tests.unit.test_safe_http import resolve_to


def found(*issuers: IdentityProvider) -> list[DoctorFinding]:
    return list(check_issuers(Settings(issuers=issuers)))


def test_an_issuer_that_answers_is_well() -> None:
    with local_issuer() as issuer:
        (one,) = found(issuer.configured())

    assert (one.level, one.says) == (FindingLevel.OK, f"{issuer.url} answers, with 1 key")


@pytest.mark.parametrize(
    ("address", "tenant", "says", "fix"),
    [
        ("10.20.0.7", None, "the address is not a public one", "name its network in LOCKBOX_PRIVATE_NETWORKS"),
        ("10.20.0.7", "contoso", "the address is not a public one", "a tenant's provider needs a public address"),
    ],
)
def test_an_issuer_in_a_private_network_is_named_with_what_lets_it_be_called(
    monkeypatch: pytest.MonkeyPatch, address: str, tenant: str | None, says: str, fix: str
) -> None:
    resolve_to(monkeypatch, [address])

    (one,) = found(LocalIssuer("https://sso.example").configured(tenant=tenant))

    assert one.level is FindingLevel.FAILURE
    assert one.says == f"nobody can sign in by https://sso.example: {says}"
    assert one.fix.startswith(fix)


def test_an_issuer_that_answers_something_else_is_named() -> None:
    with local_issuer() as good, local_issuer() as bad:
        bad.troubles[DISCOVERY] = HTML
        well, broken = found(good.configured(), bad.configured())

    assert (well.level, broken.level) == (FindingLevel.OK, FindingLevel.FAILURE)
    assert broken.says == f"nobody can sign in by {bad.url}: it answered something other than JSON"
    assert broken.fix
