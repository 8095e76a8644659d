"""Run the gate in an API process."""

import asyncio
from collections.abc import Mapping

from starlette.types import ASGIApp

from config.settings import Settings
from gate import enforcement, gate_definition
from gate.app import Gate, GateApp
from gate.call_counts import CallCounts, CountWriter
from gate.credentials import GatewayCredentials
from gate.decision_point import DecisionPoint
from gate.enforcement import EnforcementMemory
from gate.engineers import EngineerResolver, callers_of
from gate.guard_calls import GuardCalls
from gate.mapping import ServiceMapping
from gate.memory_reader import MemoryReader
from gate.stream import StreamLimits, WindowStreams
from gate.window_checks import WindowChecks
from gate.window_memory import BOOT_CLOCK, ChangeKind, WindowMemory
from lockbox.call_groups.groups import CallGroups
from lockbox.database import Database
from lockbox.pubsub import ENDS, GATES, Listener


class GateRuntime:
    def __init__(self, settings: Settings, database: Database, reading: Database, calls: CallGroups) -> None:
        self.memory = WindowMemory()
        self.counts = CallCounts()
        self.writer = CountWriter(database, self.counts)
        self.modes = EnforcementMemory(enforcement.of_catalogue(settings.catalogue))
        definitions = gate_definition.definitions(settings.catalogue)
        self.reader = MemoryReader(reading, self.memory, self.modes, definitions=definitions)
        self.mappings = _mappings(settings)
        self.engineers = EngineerResolver(
            callers_of(settings.catalogue), database, self.memory.now, clock=BOOT_CLOCK, route=settings.outbound
        )
        self.credentials = GatewayCredentials(calls, settings.environment)
        checks = WindowChecks(self.memory, self.reader, calls, compare_every=settings.gate_compare_every)
        self.gate = Gate(
            mappings=self.mappings,
            engineers=self.engineers,
            credentials=self.credentials,
            checks=checks,
            modes=self.modes,
            public_url=settings.public_url,
        )
        self.decision_point = DecisionPoint(
            services=settings.catalogue.services,
            issuers={issuer.issuer for issuer in settings.catalogue.issuers},
            credentials=self.credentials,
            identities=self.engineers.map,
            checks=checks,
            counts=self.counts,
            public_url=settings.public_url,
        )
        limits = StreamLimits(settings.gate_streams, settings.gate_streams_per_token)
        self.streams = WindowStreams(self.memory, self.credentials, limits, self.engineers.forget)
        self.guards = GuardCalls(self.gate, self.streams, settings.catalogue.services, self.memory)
        self._has_callers = bool(self.mappings or settings.catalogue.issuers)
        self._reading = reading
        self._listener: Listener | None = None

    def before(self, app: ASGIApp) -> GateApp:
        return GateApp(app, self.gate, self.counts, self.guards.answer)

    def start(self) -> None:
        """Call this on the event loop.

        If the catalogue has neither gates nor issuers, only the writer of counts starts.
        """
        self.writer.start()
        if not self._has_callers:
            return
        self.streams.listen()
        loop = asyncio.get_running_loop()

        def hear(ids: frozenset[str], side: str | None) -> None:
            if side == ENDS:
                self.reader.hear_ended(ids)
            elif side is None:
                self.reader.hear(ids)
            elif side == GATES and not loop.is_closed():
                loop.call_soon_threadsafe(self._forget, ids)

        self.reader.start()
        self._listener = self._reading.schedule.listener(hear, lambda _: None)
        self._listener.start()

    def stop(self) -> None:
        if self._listener:
            self._listener.stop()
        self.reader.stop()
        self.engineers.close()
        self.writer.stop()

    def _forget(self, ids: frozenset[str]) -> None:
        self.credentials.forget(ids)
        self.memory.announce(ChangeKind.FORGET)


def _mappings(settings: Settings) -> Mapping[str, ServiceMapping]:
    services = settings.catalogue.services
    return {name: ServiceMapping(name, service) for name, service in services.items() if service.gate is not None}
