"""The stage: servers, the network in front of them, sinks, and the crew; built, healed and struck."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from redis import Redis
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from chaos import people, questions
from chaos.celery_messages import MessageFate, MessageLog
from chaos.crew import SETTINGS, Crew, GuardProcess
from chaos.gate_calls import GateAddresses
from chaos.people import ChaosPeople
from chaos.plan import GUARD_LINK
from chaos.plan import FaultPlan as Faults
from devstack.embedded import ServerAddresses
from devstack.stack import Processes, StackPlan
from harness.mail_relay import MailRelay
from harness.network import EventLoopThread, LocalServer, Proxy, ProxyMode
from harness.ports import own_port
from harness.sinks import Manner, Sink
from harness.stage import servers_of, superuser_at, superuser_url
from lockbox.identity.roles import Scope

LOCAL = "127.0.0.1"


@dataclass(frozen=True)
class ChaosStack:
    """Everything that runs. `servers` and `superuser` bypass the proxies, for the checks.

    `controls` are the statuses that Flower gave to calls that would change something.
    """

    faults: Faults
    plan: StackPlan
    servers: ServerAddresses
    superuser: Engine
    loop: EventLoopThread
    proxies: dict[str, Proxy]
    mail: MailRelay
    messages: MessageLog
    cast: ChaosPeople
    crew: Crew
    guarded: GuardProcess
    controls: list[int] = field(default_factory=list)

    @property
    def gates(self) -> GateAddresses:
        """The addresses of the gate and of the guarded service."""
        tokens = (self.cast.gateway_token(scope) for scope in (Scope.GATE_NGINX, Scope.GATE_GUARD))
        return GateAddresses(self.plan.public_url, self.guarded.url, *tokens)

    def redis(self) -> Redis:
        """Return a client of Redis that bypasses the proxy."""
        return Redis.from_url(self.servers.redis_url, socket_timeout=5, socket_connect_timeout=5)

    def sinks(self, target: str) -> list[Sink]:
        """Return the sinks that a fault strikes."""
        return [self.mail] if target == "mail" else [*self.cast.hooks]

    def let_a_day_pass(self) -> None:
        """Make the findings about break-glass overdue that are not given yet."""
        with self.superuser.connect().execution_options(isolation_level="READ COMMITTED") as owner, owner.begin():
            owner.execute(text("SET LOCAL session_replication_role = replica"))
            owner.execute(text(questions.OVERDUE))

    def calm(self) -> None:
        """Let the proxies pass everything, and the sinks take everything, again."""
        for proxy in self.proxies.values():
            self.loop.do(proxy.turn(ProxyMode.PASS))
        for sink in (*self.sinks("mail"), *self.sinks("webhooks")):
            self.loop.do(sink.turn(Manner.TAKE))
        self.messages.fate = MessageFate.PASS


@contextmanager
def built(
    plan: StackPlan, faults: Faults, logs: Path, *, bug: str = "", kind: type[Processes] = Processes
) -> Iterator[ChaosStack]:
    """Put proxies before the servers of a migrated database, start everything, and stop all of it at the end.

    A `bug` is planted in its process (see `planted`).
    """
    with ExitStack() as ends:
        servers = servers_of(plan)
        loop = EventLoopThread()
        ends.callback(loop.close)
        messages = MessageLog()
        proxies = {
            "redis": Proxy(_port(servers.redis_url), messages.line),
            "postgres": Proxy(_port(plan.database_url)),
            GUARD_LINK: Proxy(plan.api_port),
        }
        mail = MailRelay()
        for port in (*proxies.values(), mail):
            loop.do(port.open())
            ends.callback(_shut, loop, port)
        cast = people.gather(plan, loop)
        for hook in cast.hooks:
            ends.callback(_shut, loop, hook)
        messages.forbid(cast.private())
        behind = _behind(plan, proxies, mail)
        superuser = ends.enter_context(superuser_at(superuser_url(plan)))
        guarded = _guarded(plan, proxies[GUARD_LINK], cast)
        crew = Crew(kind(behind, logs, SETTINGS), faults, guarded, bug)
        ends.callback(crew.stop)
        stage = ChaosStack(faults, behind, servers, superuser, loop, proxies, mail, messages, cast, crew, guarded)
        ends.callback(stage.calm)
        crew.start()
        people.map_engineers(plan.public_url, cast)
        yield stage


def _guarded(plan: StackPlan, link: Proxy, cast: ChaosPeople) -> GuardProcess:
    """Write the guard's token into a file that only we can read, and return the guarded service."""
    file = plan.keys / "guard.token"
    file.touch(mode=0o600)
    file.write_text(cast.gateway_token(Scope.GATE_GUARD))
    return GuardProcess(f"http://{LOCAL}:{link.port}", file, own_port())


def _shut(loop: EventLoopThread, port: LocalServer) -> None:
    loop.do(port.leave())


def _behind(plan: StackPlan, proxies: dict[str, Proxy], mail: MailRelay) -> StackPlan:
    """Return the plan in which every process goes through the proxies."""

    def through(url: str, server: str) -> str:
        return make_url(url).set(port=proxies[server].port).render_as_string(hide_password=False)

    return replace(
        plan,
        database_url=through(plan.database_url, "postgres"),
        worker_database_url=through(plan.worker_database_url, "postgres"),
        notifications_database_url=through(plan.notifications_database_url, "postgres"),
        redis_url=through(plan.redis_url, "redis"),
        smtp_url=f"smtp://{LOCAL}:{mail.port}",
    )


def _port(url: str) -> int:
    return int(make_url(url).port or 0)
