"""What the command `lockbox` prints, by one table: dialogues with the API in process, each in a world of its own.

A line is the caller with the words of a command, and then the result: `> a | ~b` prints a and not b, `! code | a` is
one line that begins with the code, and `?` is a wrong command line. `= name` stores the id in the answer under a
name, and `= name:member` stores another member.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog
from httpx import Response
from sqlalchemy import Engine

from harness.people import SETTINGS, World
from lockbox.identity.roles import BOUND_TO, Role, Scope
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.commands import CommandResult, Commands
from tests.database.tenancy import is_erased_now
from tests.http.door import OpenDoor
from tests.http.test_context import catalogue
from tests.policy_setup import group, lay_down

URL = "http://127.0.0.1:8000"

ASK = "--tenant {slug} --service exchange-online --resource mailbox:anna@contoso.example --window 10m"
WHY = "--justification 'It is broken'"
DOOR = "access --tenant {slug} --service exchange-online --engineer {erin} --resource"
NINA = "--name 'Nina Noor' --email nina@contoso.example"
NILS = "vendor invite --name 'Nils Noor' --email nils@vendor.example"
CASE = "--case CASE-7 --case-system helpdesk --case-url https://helpdesk.vendor.example/7"
NARROW = "{slug} --service exchange-online --action read --reason support_case --window 15m --uses 2 --until {later}"
GMBH = "vendor set-directory {erin} --entity 'Example Support GmbH' --office"
FABRIKAM = "--name Fabrikam --admin-name 'Nina Noor' --admin-email nina@fabrikam.example"
DIALOGUES = {
    "members": f"""
        tara member invite {{slug}} {NINA} --role approver --role auditor > approver, auditor | only the mail contains
        tara member invite {{slug}} {NINA} --role approver ! already-invited:
        aude invitation list {{slug}} = invitation
        aude invitation list {{slug}} > {{invitation}} | Nina Noor nina@contoso.example approver, auditor
        tara invitation withdraw {{slug}} {{invitation}} > Withdrawn
        tara invitation withdraw {{slug}} {{invitation}} ! invitation-closed:
        aude invitation list {{slug}} > None.
        aude member list {{slug}} --limit 2 > {{tara}} | tenant admin | There are more: --cursor
        tara member roles {{slug}} {{abe}} --role auditor --version 0123456789abcdef ! stale-version:
        tara member roles {{slug}} {{abe}} --role auditor > Roles auditor
        tara member remove {{slug}} {{abe}} > Removed.
        tara member remove {{slug}} {{abe}} ! not-found:
        tara member remove {{slug}} {{tara}} ! last-admin:
        tara member remove {{slug}} abe ?""",
    "delegates": """
        ann delegation name {slug} {aude} --until tomorrow ! invalid-request:
        tara member delegate-eligible {slug} {nobody} ! not-found:
        tara member delegate-eligible {slug} {aude} > May be a delegate yes
        ann delegation name {slug} {aude} --until 2099-01-01T00:00:00Z ! invalid-request: | 90 days
        ann delegation name {slug} {aude} --until {tomorrow} = delegation
        aude delegation list {slug} > {delegation} Ann Aude
        amir delegation end {slug} {delegation} ! wrong-role:
        ann delegation end {slug} {delegation} > Ended.
        aude delegation list {slug} > None.
        amir delegation name {slug} {aude} --for {ann} --until {later} ! wrong-role:
        tara delegation name {slug} {aude} --for {ann} --from {tomorrow} --until {later} > For Ann | Delegate Aude
        tara member delegate-eligible {slug} {aude} --no > May be a delegate no
        tara delegation list {slug} > None.""",
    "the vendor's people": f"""
        olga {NILS} --role engineer --role manager = invitation
        olga {NILS} --role engineer ! already-invited:
        olga {NILS} --role approver ! invalid-request:
        olga vendor invitations > {{invitation}} | engineer, manager
        olga vendor withdraw {{invitation}} > Withdrawn
        olga vendor roles {{eve}} --role engineer --role manager --review-tier 2 > engineer, manager | Review tier 2
        vera vendor list --limit 200 > {{eve}} Eve | engineer, manager 2 no
        olga vendor remove {{eve}} > Removed
        olga vendor disable {{eve}} > Disabled yes
        eve request list ! invalid-token:
        olga vendor remove {{olga}} ! own-roles:""",
    "tenants": f"""
        olga tenant add {{slug}}-b {FABRIKAM} > nina@fabrikam.example is invited by mail
        olga tenant add {{slug}}-b {FABRIKAM} ! slug-taken:
        olga tenant add {{slug}}-c {FABRIKAM} --plan gold ! unknown-plan:
        olga tenant show {{slug}}-b > Fabrikam | enforce
        olga tenant list --limit 1 > There are more: --cursor
        ann tenant list > {{slug}}
        ann tenant show {{slug}}-b ! not-found:
        olga tenant suspend {{slug}} > Suspended yes
        olga tenant resume {{slug}} > Suspended no
        olga tenant plan {{slug}} standard > Plan standard
        olga tenant plan {{slug}} gold ! unknown-plan:
        tara tenant rename {{slug}} 'Contoso [bold]& Söhne[/]' > Contoso [bold]& Söhne[/]""",
    "recovery": f"""
        olga tenant recover {{slug}} {NINA} = first
        olga tenant recover {{slug}} {NINA} ! recovery-open:
        ann invitation list {{slug}} > {{first}} | proposed by the vendor, from
        ann tenant object {{slug}} {{first}} > Objected
        ann invitation list {{slug}} > None.
        olga tenant recover {{slug}} {NINA} = second
        olga tenant withdraw {{slug}} {{second}} > Withdrawn
        olga tenant recover {{slug}} {NINA} > Proposed as | unless they object.""",
    "modes": f"""
        tara tenant mode {{slug}} lax ! invalid-request:
        tara tenant mode {{slug}} observe > {{slug}} is in observe now.
        erin request submit {ASK} {WHY} = alone
        max request endorse {{alone}} > Open until
        tara tenant mode {{slug}} enforce > {{slug}} is in enforce now. | opened them alone | {{alone}}
        erin request submit {ASK} {WHY} = opened
        ann request approve {{opened}} > Open until
        erin request submit {ASK} {WHY} = waiting
        tara tenant emergency-stop {{slug}} --comment 'Go home'
            > {{stopped}} | Revoked: | {{opened}} | Denied: | {{waiting}}
        ann tenant emergency-stop {{slug}} ! wrong-role:""",
    "policies": """
        ann policy diff {slug} {strict} > approval_window 43200 → 3600 quorum 1 → 2
        olga policy diff {slug} {strict} ! wrong-role:
        tara policy set {slug} {impossible} ! nobody-can-approve:
        ann policy set {slug} {strict} ! wrong-role:
        tara policy set {slug} {nothing} ?
        ann policy show {slug} > Version 1 of
        tara policy set {slug} {strict} > quorum 1 → 2 | The policy is at version 2.
        tara policy set {slug} {strict} > Nothing changes. The policy is at version 2.
        aude policy versions {slug} > Tara | nobody: the tenant began with it
        aude policy versions {slug} --before 2 > nobody: the tenant began with it | ~Tara
        tara policy set {slug} {broken} ! {broken} is not JSON
        tara policy diff {slug} {listed} ! {listed}: policy:
        tara policy set {slug} {unknown} ! {unknown}: quorum: write 1 or more; made_up: there is nothing of that name;
        tara policy set {slug} {groupless} ! {groupless}: | there is no group legal
        tara policy diff {slug} {unversioned} ! {unversioned}: version: write it as a whole number""",
    "webhooks": """
        tara endpoint add {url} --tenant {slug} --event request.approved = endpoint
        tara endpoint change {endpoint} --all-events --disable --description Ours > disabled (by hand)
        tara endpoint list --tenant {slug} > {endpoint}
        tara endpoint show {endpoint} > Ours | all
        tara endpoint test {endpoint} ! endpoint-disabled:
        tara endpoint deliveries {endpoint} > None.
        tara endpoint redeliver {endpoint} ! not-found:
        tara endpoint remove {endpoint} > Removed.
        tara endpoint show {endpoint} ! not-found:
        tara endpoint add https://10.0.0.1/ --tenant {slug} ! invalid-request:
        olga endpoint add {url} = ours
        olga endpoint test {ours} > Test queued with webhook-id
        olga endpoint list > {ours}
        tara endpoint show {ours} ! not-found:""",
    "observers": f"""
        tara observer add {{slug}} --name Desk --email desk@contoso.example --service exchange-online > Name Desk
        ann observer list {{slug}} = observer
        ann observer list {{slug}} > {{observer}} Desk desk@contoso.example exchange-online Tara
        ann tenant preview {{slug}} --service exchange-online --resource mailbox:a
            > Desk (desk@contoso.example) | Ann (
        tara observer remove {{slug}} {{observer}} > Removed. This observer gets no more copies.
        ann observer list {{slug}} > None.
        erin request preview {ASK} {WHY} > Can be submitted yes | Abe, Amir, Ann | Notified first
        ann request preview {ASK} {WHY} ! wrong-role:""",
    "tokens": f"""
        olga me > {{olga}} | At the vendor operator
        ann me > At {{slug}} approver
        erin token make mine --scope access:check ! wrong-role:
        gate token make mail --service none ! unknown-service:
        gate token make filer --scope requests:file --service exchange-online = filer:token
        gate token list > filer | requests:file
        {{filer}} request submit {ASK} {WHY} --engineer {{erin}} > Requester Erin
        erin token make lost = lost
        eve token revoke {{lost}} ! not-found:
        olga token rotate {{lost}} ! not-found:
        erin token make nightly = nightly:token
        {{nightly}} token make another ! fresh-sign-in-needed:
        {{nightly}} token rotate {{lost}} ! fresh-sign-in-needed:
        {{nightly}} token rotate --overlap 0h = renewed:token
        {{nightly}} me ! invalid-token:
        {{renewed}} me > Erin
        erin token revoke {{lost}} > Revoked.""",
    "requests": f"""
        erin request submit {ASK} --resource mailbox:bob@contoso.example --action read --action export
            --justification 'It does not open [bold]now[/]' = request
        ann request show {{request}} > It does not open [bold]now[/]
        ann request questions {{request}} > There are no questions.
        ann request ask {{request}} 'Which [bold]mails[/]?' = question
        erin request questions {{request}} > Which [bold]mails[/]? | not yet
        erin request answer {{request}} {{question}} 'Those of May' > Those of May
        erin request answer {{request}} {{question}} Again ! already-answered:
        ann request deny {{request}} --version 7 ! stale-version:
        ann request deny {{request}} ! comment-required: | Give it with --comment.
        erin request revoke {{request}} ! wrong-role:
        ann request approve {{request}} --action delete ! invalid-request: You can leave out
        ann request approve {{request}} --resource mailbox:anna@contoso.example --action read --comment 'Be quick'
            > Granted read in mailbox:anna@contoso.example
        gate {DOOR} mailbox:anna@contoso.example > Open until
        gate {DOOR} mailbox:bob@contoso.example ! no-open-window:
        erin request submit {ASK} {WHY} > 3 people are asked
        erin request list --limit 1 > There are more: --cursor
        aude audit list --text 'be QUICK' > approve | Be quick
        ann audit list ! wrong-role:
        erin request show x ?
        erin request list --limit 0 ?
        erin no-such ?""",
    "more time": f"""
        erin request submit {ASK} {WHY} = first
        ann request approve {{first}} > Open until
        erin request extend {{first}} 20m > Extends {{first}}: +20 min until
        erin request extend {{first}} 5m ! already-extended:
        erin request show {{first}} = second:extended_by
        ann request approve {{second}} --window 5m > Extends {{first}}: +5 min until | State Open from""",
    "later starts": f"""
        erin request submit {ASK} {WHY} --not-before 2020-01-01T00:00Z ! policy-not-met:
        erin request submit {ASK} {WHY} --not-before {{tomorrow}} = request
        ann request approve {{request}} --opens-at {{today}} ! invalid-
        ann request approve {{request}} --opens-at {{later}} > Begins
        erin request show {{request}} --output json > "opens_at": "{{later}}\"""",
    "break-glass": f"""
        tara policy set {{slug}} {{glass}} > The policy is at version 2.
        erin request submit {ASK} {WHY} --break-glass = request
        max request break-glass {{request}} ! comment-required:
        max request break-glass {{request}} --comment 'Mail is down' > Open until
        ann request list > BREAK-GLASS: active
        ann request revoke {{request}} > Revoked
        ann request findings > {{request}} | Erin | Max
        ann request finding {{request}} not_justified --comment 'We were awake' > We were awake
        max request show {{request}} > not justified, by Ann
        ann request findings > None.
        aude audit statistics > all - 1 0 0 0 1 1 0 1 - | service exchange-online 1""",
    "what opens without approval": f"""
        aude tenant unapproved-access {{slug}} > Nothing: nobody from the vendor gets access without the customer's
        tara policy set {{slug}} {{glass}} > The policy is at version 2.
        erin request submit {ASK} {WHY} --break-glass = request
        max request break-glass {{request}} --comment 'Mail is down' > Open until
        ann tenant unapproved-access {{slug}} > Can open without approval break-glass | ~barred now
            | exchange-online, two of the vendor (anybody), 1 of 2 within 30 | 1, the newest {{request}},
        tara tenant emergency-stop {{slug}} > 1 open windows revoked
        ann tenant unapproved-access {{slug}} > ; barred now by an emergency stop
        erin tenant unapproved-access {{slug}} ! wrong-role:""",
    "cases": f"""
        erin request submit {ASK} {WHY} {CASE} = first
        ann request approve {{first}} > Open until
        erin request submit {ASK} {WHY} {CASE} ! duplicate-request:
        erin request submit {ASK} {WHY} {CASE} --duplicate-reason 'To change it'
            > {{first}}: To change it | CASE-7 in helpdesk
        desk request close-case helpdesk CASE-7 > revoked | cancelled
        ann request events {{first}} > The support case was closed.
        desk request close-case helpdesk CASE-7 > Nothing was open
        desk token list > case:close of {{slug}}
        erin request close-case helpdesk CASE-7 ! wrong-role:""",
    "steps": f"""
        erin request submit {ASK} {WHY} = request
        ann request show {{request}} > 0 of 1 of security | 0 of 1 of legal, in step 2
        ann request approve {{request}} ! earlier-step-first:
        abe request approve {{request}} > Waiting for the customer's
        erin request events {{request}} > step 2 began, and its approvers were asked""",
    "pre-approvals": f"""
        tara pre-approval propose {NARROW} --resource mailbox:* ! invalid- | Name at least a part of the id
        tara pre-approval propose {NARROW} --resource mailbox:anna@* = approved
        tara pre-approval approve {{slug}} {{approved}} ! wrong-role:
        ann pre-approval approve {{slug}} {{approved}} > {{approved}}
        erin request submit {ASK} {WHY} > Pre-approval {{approved}} | Open until
        aude pre-approval list {{slug}} > 1 of 2
        amir pre-approval revoke {{slug}} {{approved}} > {{approved}}
        erin request list > revoked""",
    "the directory": f"""
        copier {GMBH} Germany ! invalid-request:
        olga {GMBH} DE ! wrong-role:
        copier {GMBH} DE --located PL > Example Support GmbH
        erin request submit {ASK} {WHY} --severity S9 ! invalid-request:
        erin request submit {ASK} {WHY} --severity S1
            > Severity S1 | Location Example Support GmbH, office in DE, located in PL""",
    "what is kept and not covered": """
        olga exclusions state {exclusions} > 1
        tara exclusions tenant {slug} > Demands by law are not covered.
        tara exclusions show = version:version
        tara exclusions acknowledge {slug} --version 99 ! not-found:
        tara exclusions acknowledge {slug} --version {version} > {version}
        vera exclusions acknowledgements --limit 200 > {slug} Contoso {version}
        tara data retention {slug} --days 7 ! invalid-request:
        tara data retention {slug} --days 90 > 90 days
        tara data hold {slug} --reason 'Dispute 4711' > customer: Dispute 4711
        tara data leave {slug} ! conflict:
        olga data show {slug} > 90 days | ~Dispute 4711
        tara member review {slug} > Vendor staff with multiple roles: | Both engineer, manager""",
}


NO_POLICIES = {
    "broken": "{",
    "listed": "[]",
    "unknown": '{"quorum": 0, "made_up": 1}',
    "groupless": '{"stages": [{"group": "legal"}]}',
    "unversioned": '{"version": "one", "policy": {}}',
}


def both_sides(world: World) -> None:
    """Make one person an engineer and a manager."""
    world.add("both", Role.ENGINEER)
    world.put_on_both_sides("both", Role.MANAGER)


SCENES: Mapping[str, Callable[[World], object]] = {
    "cases": lambda world: world.add(
        "desk", Role.SYSTEM, scopes={Scope.CASE_CLOSE.value, f"{BOUND_TO}{world.tenant.slug}"}
    ),
    "steps": lambda world: lay_down(
        world,
        stages=[{"group": "security"}, {"group": "legal", "order": 2}],
        groups={"security": group(world, "abe"), "legal": group(world, "ann")},
    ),
    "the directory": lambda world: world.add("copier", Role.SYSTEM, scopes={Scope.DIRECTORY_WRITE}),
    "what is kept and not covered": both_sides,
}
"""What is there before a dialogue begins."""


OpenTerminal = Callable[..., Commands]


@pytest.fixture
def open_terminal(open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenTerminal]:
    """Return a function that makes a new world and a terminal in it; the test's end restores the logs' setup."""
    kept = structlog.get_config()
    # A terminal prints what the command says, and not what the API logs in this process.
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())

    def opened(*given: Any, **settings: Any) -> Commands:
        door = open_door(*given).with_settings(**settings)

        def request(method: str, url: str, **parts: Any) -> Response:
            return door.runner.run(door.client.request(method, url.removeprefix(URL), **parts))

        monkeypatch.setattr("cli.client.httpx.request", request)
        return Commands(door.world, URL)

    yield opened
    structlog.configure(**kept)


@pytest.fixture
def terminal(open_terminal: OpenTerminal) -> Commands:
    return open_terminal()


@pytest.fixture
def names(terminal: Commands, tmp_path: Path, dialogue: str) -> dict[str, Any]:
    if scene := SCENES.get(dialogue):
        scene(terminal.world)
    now, usual = datetime.now(UTC), Policy(vendor_review=False).model_dump(mode="json")
    files: dict[str, dict[str, Any]] = {"strict": {"quorum": 2, "approval_window": 3600}, "impossible": {"quorum": 4}}
    files["glass"] = {"break_glass_services": ["exchange-online"]}
    for name, changes in files.items():
        (tmp_path / name).write_text(json.dumps(usual | changes))
    for name, content in NO_POLICIES.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "exclusions").write_text("Demands by law are not covered.\n")
    return {
        **{name: caller.person_id for name, caller in terminal.world.people.items()},
        **{name: tmp_path / name for name in (*files, *NO_POLICIES, "exclusions", "nothing")},
        "slug": terminal.world.tenant.slug,
        "nobody": uuid4(),
        "today": f"{now:%Y-%m-%dT%H:%M:00Z}",
        "tomorrow": f"{now + timedelta(days=1):%Y-%m-%dT%H:%M:00Z}",
        "later": f"{now + timedelta(days=2):%Y-%m-%dT%H:%M:00Z}",
        "url": "https://hooks.contoso.example/lockbox",
        "stopped": "1 open windows revoked, 1 pending requests denied, 0 denied in the vendor's review.",
    }


def lines(dialogue: str) -> Iterator[tuple[str, str, str]]:
    """Yield the words, the sign and the result of each line; an indented line continues the line before."""
    for line in dialogue.replace("\n            ", " ").strip().splitlines():
        sign = next(one for one in (" > ", " ! ", " = ", " ?") if one in f"{line} "[-2:] or one in line)
        words, _, rest = line.strip().partition(sign)
        yield words, sign.strip(), rest


@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_each_command_of_a_scripted_cli_session_prints_the_expected_answer(
    terminal: Commands, names: dict[str, Any], dialogue: str
) -> None:
    for words, sign, rest in lines(DIALOGUES[dialogue]):
        who, *command = shlex.split(words.format(**names))
        if sign == "=":
            name, _, member = rest.partition(":")
            answer = json.loads(succeeds(terminal.run(who, *command, "--output", "json")).out)
            names[name] = (answer["items"][0] if "items" in answer else answer)[member or "id"]
            continue
        expected = [one.strip().format(**names) for one in rest.split(" | ")]
        if sign == "?":
            ended = terminal.run(who, *command)
            assert (ended.code, ended.out, "Usage: " in ended.err) == (2, "", True), words
        elif sign == "!":
            printed = terminal.is_refused(who, expected[0], *command)
            assert all(one in printed for one in expected[1:]), (words, printed)
        else:
            printed = " ".join(succeeds(terminal.run(who, *command)).out.split())
            off = [one for one in expected if (one.removeprefix("~") in printed) is one.startswith("~")]
            assert off == [], (words, printed)
            assert "whsec_" not in printed


def succeeds(ended: CommandResult) -> CommandResult:
    assert ended.code == 0, ended
    return ended


def test_before_a_suspension_the_cli_counts_the_open_windows_and_asks_for_confirmation(terminal: Commands) -> None:
    slug, world = terminal.world.tenant.slug, terminal.world
    world.act("ann", Action.APPROVE, world.submit().id)

    asked = terminal.run("olga", "tenant", "suspend", slug, stdin="n\n")
    kept = terminal.reads("olga", "tenant", "show", slug)
    done = terminal.reads("olga", "tenant", "suspend", slug, "--yes")

    assert "1 open windows of" in asked.out
    assert (asked.code, kept["suspended"], kept["open_windows"]) == (1, False, 1)
    assert (done["suspended"], done["open_windows"]) == (True, 0)


def asking(terminal: Commands, *more: object) -> list[object]:
    """Return the words of a good submission, and further ones."""
    asked = [
        "--tenant",
        terminal.world.tenant.slug,
        "--service",
        "exchange-online",
        "--resource",
        "mailbox:anna@contoso.example",
    ]
    return ["request", "submit", *asked, "--justification", "It does not open", "--window", "10m", *more]


def test_the_cli_sends_validates_and_shows_context_parameters_and_the_access_level(
    open_terminal: OpenTerminal,
) -> None:
    terminal = open_terminal(catalogue=catalogue(SETTINGS.catalogue))

    refused = terminal.is_refused("erin", "invalid-context: ", *asking(terminal, "--context", "environment=prod"))
    given = ("--context", "environment=staging", "--context", "rows=7", "--action", "export")
    shown = terminal.does("erin", *asking(terminal, *given))

    assert "Choose production, staging." in refused
    assert re.search(r"^Level +export *$", shown, re.MULTILINE)
    assert re.search(r"^Parameters +environment: staging; rows: 7 *$", shown, re.MULTILINE)


def test_the_cli_explains_refusals_for_an_erased_tenant_and_omits_the_tenant_from_lists(
    open_terminal: OpenTerminal, root: Engine
) -> None:
    terminal = open_terminal()
    slug = terminal.world.tenant.slug
    is_erased_now(terminal.world, root)

    for words in (["resume", slug], ["plan", slug, "standard"], ["suspend", slug, "--yes"]):
        terminal.is_refused("olga", "tenant-erased: ", "tenant", *words)
    named = ["--name", "Nina", "--email", "nina@contoso.example"]
    terminal.is_refused("olga", "tenant-erased: ", "tenant", "recover", slug, *named)
    assert slug not in terminal.does("olga", "tenant", "list", "--limit", "200")
