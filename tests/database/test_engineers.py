"""How the gate identifies the engineer of a call: by tokens of real issuers, certificates, headers and a real map."""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import create_engine

from catalogue.gate_document import GateCallers
from gate import identity_map
from gate.answers import Denial, GateReason
from gate.bearer_tokens import GateIssuer
from gate.call import SentHeaders
from gate.engineers import (
    CallIdentity,
    EngineerCall,
    EngineerResolver,
    NotApplicable,
    ServiceCallers,
    UnidentifiedCall,
)
from gate.identity_map import IdentityMap, MappingInput
from harness.people import World
from lockbox.admin import vendor_staff
from lockbox.database import Database
from lockbox.identity.roles import Role
from lockbox.sql import new_id
from tests.database.scenes import read
from tests.database.tenancy import id_of, manages
from tests.each import each
from tests.oidc_issuer import BROKEN, NOON, LocalIssuer, local_issuer

pytestmark = pytest.mark.usefixtures("patient_gate")
GATEWAY = new_id()
SUBJECT = b"x-client-subject"
ENGINEER = b"x-engineer"


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        yield running


@dataclass
class GatedWorld:
    """A world, an issuer, and a service for each way of identifying callers."""

    world: World
    issuer: LocalIssuer
    db: Database

    def __post_init__(self) -> None:
        self.now = NOON
        provider = self.issuer.configured(
            client_id=None, client_secret=None, jwks_url=f"{self.issuer.url}/jwks", algorithms=("ES256",)
        )
        token, mail = GateIssuer(provider), GateIssuer(provider, vouches_for_mail=True)
        subject, engineer = SUBJECT.decode(), ENGINEER.decode()
        self.services = {
            "support": ServiceCallers([token]),
            "trusting": ServiceCallers([mail]),
            "public": ServiceCallers([token], GateCallers(issuer=self.issuer.url, claim="groups", value="support")),
            "certified": ServiceCallers([], GateCallers(entrance="support", subject_header=subject)),
            "named": ServiceCallers([], GateCallers(entrance="support", engineer_header=engineer)),
            "any": ServiceCallers(
                [token], GateCallers(entrance="support", subject_header=subject, engineer_header=engineer)
            ),
        }
        self.resolver = EngineerResolver(self.services, self.db, lambda: self.now)
        self.resolver.map = IdentityMap(self.db, read_seconds=20.0)

    def map(self, subject: str, person: str = "erin", issuer: str = "") -> UUID:
        issuer = issuer or self.issuer.url
        known = {self.issuer.url, "mtls:certified", "mtls:any"}
        wanted = MappingInput(issuer, subject, id_of(self.world, person))
        mapped = manages(self.world, "olga", identity_map.add, wanted, known=known)
        self.resolver.forget()
        return mapped.row.id

    def ask(
        self, service: str, *headers: tuple[bytes, bytes], token: str | None = None, gateway: UUID | None = GATEWAY
    ) -> CallIdentity:
        shown = () if token is None else ((b"authorization", f"Bearer {token}".encode()),)
        around = ((b"host", b"gate.example"), (b"x-request-id", b"7"))
        return asyncio.run(self.resolver.identify(service, SentHeaders((*around, *headers, *shown)), gateway))

    def failure(self, service: str, *headers: tuple[bytes, bytes], token: str | None = None) -> GateReason:
        found = self.ask(service, *headers, token=token)
        assert isinstance(found, UnidentifiedCall), found
        assert found.detail
        return found.reason


@pytest.fixture
def gated(world: World, issuer: LocalIssuer) -> Iterator[GatedWorld]:
    found = GatedWorld(world, issuer, world.db)
    yield found
    found.resolver.close()


def test_a_token_of_a_mapped_identity_names_the_mapped_engineer(gated: GatedWorld) -> None:
    gated.map("anne")
    erin = id_of(gated.world, "erin")

    assert gated.ask("support", token=gated.issuer.token()) == EngineerCall(erin, gated.issuer.url, "anne")
    assert gated.failure("support", token=gated.issuer.token(sub="bob")) is GateReason.UNKNOWN_ENGINEER
    assert gated.failure("support", token=gated.issuer.token(sub="Anne")) is GateReason.UNKNOWN_ENGINEER


@pytest.mark.far
def test_after_a_change_message_the_gate_no_longer_knows_removed_identities_or_disabled_people(
    gated: GatedWorld,
) -> None:
    gated.world.add("emil", Role.ENGINEER)
    anne, _ = gated.map("anne"), gated.map("bob", "emil")
    tokens = [gated.issuer.token(), gated.issuer.token(sub="bob")]
    assert all(isinstance(gated.ask("support", token=token), EngineerCall) for token in tokens)

    manages(gated.world, "olga", identity_map.remove, anne)
    manages(gated.world, "olga", vendor_staff.disable, id_of(gated.world, "emil"))
    gated.resolver.forget()

    assert [gated.failure("support", token=token) for token in tokens] == [GateReason.UNKNOWN_ENGINEER] * 2


def test_a_mail_address_identifies_an_engineer_only_if_the_issuer_vouches_for_the_address(gated: GatedWorld) -> None:
    address = read(gated.world.db, "SELECT email FROM people WHERE id = :id", id=id_of(gated.world, "erin"))[0].email
    token = gated.issuer.token(email=address, email_verified=True)

    assert gated.failure("support", token=token) is GateReason.UNKNOWN_ENGINEER
    assert gated.ask("trusting", token=token) == EngineerCall(id_of(gated.world, "erin"), gated.issuer.url, "anne")
    unverified = gated.issuer.token(email=address)
    assert gated.failure("trusting", token=unverified) is GateReason.UNKNOWN_ENGINEER


def test_a_caller_whose_token_lacks_the_engineer_claim_passes_only_if_the_token_is_verified(
    gated: GatedWorld,
) -> None:
    gated.map("anne")
    engineer = gated.issuer.token(groups=["sales", "support"])

    assert gated.ask("public", token=gated.issuer.token(groups=["sales"])) == NotApplicable(gated.issuer.url)
    assert gated.failure("public", token=gated.issuer.token(sub="bob")) is GateReason.UNKNOWN_ENGINEER
    assert isinstance(gated.ask("public", token=engineer), EngineerCall)
    assert gated.failure("public", token=gated.issuer.token(sub="bob", groups=[["sales"]])) is (
        GateReason.UNKNOWN_ENGINEER
    )
    assert gated.failure("public") is GateReason.NO_TOKEN
    assert gated.failure("public", token=gated.issuer.unsigned_token()) is GateReason.BAD_TOKEN
    assert gated.failure("public", token=gated.issuer.token(aud="other")) is GateReason.BAD_TOKEN
    with local_issuer() as other:
        assert gated.failure("public", token=other.token(groups=["sales"])) is GateReason.BAD_TOKEN


@each("value", [b"", b"Bearer", b"Bearer ", b"Basic YTpi", b"token", b"Digest x"])
def test_a_malformed_bearer_token_is_refused(gated: GatedWorld, value: bytes) -> None:
    assert gated.failure("support", (b"authorization", value)) is GateReason.NO_TOKEN


def test_upper_and_lower_case_differ_in_a_bearer_token_but_not_in_the_word_bearer(gated: GatedWorld) -> None:
    gated.map("anne")
    token = gated.issuer.token().encode()

    for scheme in (b"bearer", b"BEARER", b"Bearer"):
        assert isinstance(gated.ask("support", (b"authorization", scheme + b" " + token)), EngineerCall)
    for value in (b"Bearer  " + token, b"Bearer " + token + b" ", b"Bearer " + token + b", Bearer " + token):
        assert gated.failure("support", (b"authorization", value)) is GateReason.BAD_TOKEN


def test_the_subject_of_a_certificate_is_mapped_to_an_engineer_for_one_service_only(gated: GatedWorld) -> None:
    gated.map("CN=erin,O=Vendor", issuer="mtls:certified")
    erin, header = id_of(gated.world, "erin"), (SUBJECT, b"CN=erin,O=Vendor")

    assert gated.ask("certified", header) == EngineerCall(erin, "mtls:certified", "CN=erin,O=Vendor")
    assert gated.failure("any", header) is GateReason.UNKNOWN_ENGINEER
    assert gated.failure("certified", (SUBJECT, b"CN=erin, O=Vendor")) is GateReason.UNKNOWN_ENGINEER


def test_an_identity_header_is_mapped_to_an_engineer_for_one_gateway_only(gated: GatedWorld) -> None:
    gateway = id_of(gated.world, "gate")
    gated.map("erin", issuer=f"header:{gateway}")
    erin, header = id_of(gated.world, "erin"), (ENGINEER, b"erin")

    assert gated.ask("named", header, gateway=gateway) == EngineerCall(erin, f"header:{gateway}", "erin")
    other = gated.ask("named", header, gateway=GATEWAY)
    assert isinstance(other, UnidentifiedCall)
    assert other.reason is GateReason.UNKNOWN_ENGINEER
    nobody = gated.ask("named", header, gateway=None)
    assert isinstance(nobody, UnidentifiedCall)
    assert nobody.reason is GateReason.MALFORMED


@each(
    "headers",
    [
        [(ENGINEER, b"erin"), (ENGINEER, b"erin")],
        [(ENGINEER, b"erin"), (SUBJECT, b"CN=erin")],
        [(ENGINEER, b"erin"), (b"authorization", b"Bearer x.y.z")],
        [(ENGINEER, b"erin"), (b"authorization", b"Basic YTpi")],
        [(SUBJECT, b""), (b"authorization", b"Bearer x.y.z")],
        [(b"authorization", b"Bearer x.y.z"), (b"authorization", b"Bearer x.y.z")],
        [(ENGINEER, b"")],
        [(ENGINEER, b" ")],
        [(ENGINEER, b" erin")],
        [(ENGINEER, "érin".encode())],
        [(ENGINEER, b"erin\x00")],
        [(ENGINEER, b"erin\n")],
        [(ENGINEER, b"e" * 501)],
    ],
)
def test_an_identity_header_that_is_empty_or_repeated_or_ambiguous_is_refused(
    gated: GatedWorld, headers: list[tuple[bytes, bytes]]
) -> None:
    assert gated.failure("any", *headers) is GateReason.MALFORMED


def test_an_identity_header_that_the_service_does_not_name_is_ignored(gated: GatedWorld) -> None:
    gated.map("anne")

    assert gated.failure("support", (ENGINEER, b"erin"), (SUBJECT, b"CN=erin")) is GateReason.NO_TOKEN
    assert isinstance(gated.ask("support", (ENGINEER, b"max"), token=gated.issuer.token()), EngineerCall)
    assert gated.failure("named", (SUBJECT, b"CN=erin"), token=gated.issuer.token()) is GateReason.NO_TOKEN


def test_an_unreachable_issuer_and_an_outdated_database_read_cause_different_refusals(gated: GatedWorld) -> None:
    gated.issuer.troubles["/jwks"] = BROKEN
    assert gated.failure("support", token=gated.issuer.token()) is GateReason.BUSY

    with local_issuer() as other:
        nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/x", connect_args={"connect_timeout": 1})
        lost = GatedWorld(gated.world, other, Database(nowhere, gated.world.db.schedule))
        assert lost.failure("support", token=other.token()) is GateReason.BEHIND
        lost.resolver.close()


def test_the_gate_offers_a_sign_in_link_only_with_status_401() -> None:
    expected = {
        GateReason.NO_TOKEN: 401,
        GateReason.BAD_TOKEN: 401,
        GateReason.MALFORMED: 403,
        GateReason.UNKNOWN_ENGINEER: 403,
        GateReason.BUSY: 403,
        GateReason.BEHIND: 403,
    }
    assert {reason: Denial(reason).status for reason in expected} == expected


def test_an_expired_token_is_refused_although_the_engineer_is_remembered(gated: GatedWorld) -> None:
    gated.map("anne")
    token = gated.issuer.token()
    assert isinstance(gated.ask("support", token=token), EngineerCall)

    gated.now = NOON + timedelta(minutes=7)
    gated.resolver.close()
    gated.resolver = EngineerResolver(gated.services, gated.world.db, lambda: gated.now)

    assert gated.failure("support", token=token) is GateReason.BAD_TOKEN


def test_the_gate_identifies_a_remembered_engineer_without_waiting(gated: GatedWorld) -> None:
    gated.map("anne")
    token = gated.issuer.token()
    gated.ask("support", token=token)
    headers = [(b"host", b"gate.example")] * 12 + [(b"authorization", f"Bearer {token}".encode())]

    async def asked() -> float:
        began = time.perf_counter()
        for _ in range(2000):
            call = gated.resolver.identify("support", SentHeaders(headers), GATEWAY)
            with pytest.raises(StopIteration):
                call.send(None)
        return (time.perf_counter() - began) / 2000

    assert asyncio.run(asked()) < 0.01
