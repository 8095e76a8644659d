"""What pages answer to forms, by one table: dialogues with the portal, each in a world of its own.

A line says who opens which page (`+` is their current page), perhaps a form on it with its input, and then the
result: `> a | ~b` shows a and not b, and `! 422 a` is refused with that status. `@/path` is the page that follows,
`&name=value` what a field still holds, `+/path` a form that is offered, and `-/path` one that is not.
"""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from lockbox.admin import members, recovery, webhooks
from lockbox.requests.policy_rules import Policy
from tests.database.tenancy import does, id_of
from tests.http.places import REACH
from tests.http.portal import Browser, OpenPortal, Portal, PortalPage

URL = "https://hooks.contoso.example/lockbox"
NINA = "{here}/members {here}/members name='Nina Noor'"
DIALOGUES = {
    "members": f"""
        tara {NINA} address=nina@contoso.example roles=approver > @{{here}}/members | nina@contoso.example
        tara + /members/withdraw > ~nina@contoso.example
        tara {NINA} address=nina roles=approver ! 422 Mail address: write one mail address | &address=nina
        tara {NINA} address=nina@contoso.example roles=root ! 422 Roles: choose tenant_admin, approver or auditor.
        tara {NINA} address=nina@contoso.example ! 422 Roles: choose at least one. | &name=Nina Noor
        tara {{here}}/members {{here}}/members name={{evil}} address=nina@contoso.example ! 422 Not accepted: Name:
        tara {{here}} /leave ! 403 Make someone else an admin first
        aude {{here}} /leave > @/requests
        tara {{here}}/members > Abe | ~Aude""",
    "the mode and the name": """
        tara {here}/mode /mode mode=observe > enforce → observe
        ann {here}/mode > ~Now: observe
        tara + /mode/save > @{here}/mode | Now: observe , the vendor decides, and you are notified
        tara {here}/mode /mode mode=off > observe → off | Only your admins and webhooks are notified
        tara + /mode/save > @{here}/mode | Now: off , the vendor decides, and only your admins and webhooks
        tara {here} /name name='  ' ! 422 Not accepted: Name
        tara + /name name='Fabrikam <b>' > Fabrikam &lt;b&gt;""",
    "the policy": """
        tara {here}/policy /policy text='{strict}' > Approvals needed quorum 1 → 2 | approval_window 12 h → 10 min
        tara + /policy/save > @{here}/policy
        tara {here}/policy /policy text='{strict}' > Nothing changes: this is the policy in force. | -/save""",
    "webhooks": """
        tara {here}/endpoints/{hook} /change url={url}/2 events=request.submitted > {url}/2
        tara {here}/endpoints/{hook} /rotate hours=x ! 422 Hours in which the old secret also signs: write
        tara {here}/endpoints/{hook} /rotate hours=2 > whsec_
        tara {here}/endpoints/{hook} > Old secret also signs until | ~whsec_
        tara {here}/endpoints/{hook} /turn > disabled since
        tara + /turn > @{here}/endpoints/{hook} | Disable
        tara + /remove > @{here}/endpoints | ~{url}/2
        tara {here}/endpoints/{hook} ! 404""",
    "delegates": """
        ann {here}/delegates /delegates ends=soon ! 422
        ann {here}/delegates /delegates delegate=x ends={near} ! 422
        ann {here}/delegates /delegates starts=x ends={near} ! 422 &starts=x
        tara {here}/delegates /delegates principal={abe} ends={far} ! 422 at most 90 days | &ends={far}
        tara + /delegates ends={near} > Aude for Abe
        amir {here}/delegates > Aude for Abe | -/end
        abe {here}/delegates /delegates/end > There are no current or planned delegates""",
    "further pages": """
        tara {here}/tiers > Contoso
        tara {here}/emergency-stop > Contoso
        tara /device > code
        erin /requests/{request}/questions > Erin""",
    "observers": """
        tara {here}/observers /observers name=Desk address=desk ! 422 &address=desk
        tara + /observers address=desk@contoso.example service=onedrive > OneDrive · added by Tara
        tara + /observers name=Desk address=desk@contoso.example service=onedrive ! 409
        tara {here}/observers /observers/remove > There are no observers.""",
    "tokens": """
        gate /account /account/tokens/new name=nginx scopes=gate:nginx services=exchange-online > for gate:nginx of
        gate /account > for gate:nginx of exchange-online
        gate /account /account/tokens/new name=desk scopes=case:close ! 422 ~lbx_test_
        gate /account /account/tokens/new name=desk scopes=case:close tenants={slug} > It is for case:close of {slug}.
        gate /account > for case:close of {slug}
        ann /account > ~gate:nginx
        ann /account /account/tokens/new name=x scopes=gate:nginx services=exchange-online ! 403 ~lbx_test_
        abe /account /account/tokens/new name={evil} ! 422 ~lbx_test_""",
    "questions": """
        ann /requests/{request} /questions text='  ' ! 422 Not accepted
        ann /requests/{request} /questions text={long} ! 422 Not accepted | &text={long}
        ann /requests/{request} /questions text={evil} ! 422 Not accepted | &text={evil}
        ann + /questions text='Which mails? <script>' > There is no answer yet. | ~<script> | You asked a question.
        tara /requests/{request} > -/questions
        max /requests/{request} > -/questions
        erin /requests/{request} > -/questions
        erin /requests/{request} /answer text='Those of May' > You answered the question. The person who asked
        ann /requests/{request} > Those of May | asked a question | answered a question | ~There is no answer yet.
        amir /requests/{request} /deny comment=No > Denied
        ann + /questions text='Too late?' ! 409 This request is denied. Questions can no longer be asked""",
    "decisions": """
        aude /requests/{request} > -/approve | -/deny
        tara /requests/{request} > -/approve | +/deny
        vera /requests/{request} > -/deny
        max /requests/{request} > -/deny
        erin /requests/{request} > -/approve | -/deny | +/cancel
        ann /requests/{request} > +/approve | +/deny | -/revoke
        ann + /approve > You approved. Erin can read 1 mailbox in Exchange Online until | +/revoke | -/deny
        erin /requests/{request} /complete > You completed the access. Erin's access ended at""",
    "a denial": """
        ann /requests/{request} /deny comment='No longer needed' > You denied the request. Erin gets no access, and is
        ann /requests/{request} > Ann (approver) denied | no longer grants access | No longer needed | -/deny""",
    "a withdrawal": """
        erin /requests/{request} /cancel comment=Done > You cancelled the request. It can no longer be | -/cancel
        ann /requests/{request} > Erin (requester) cancelled the request | no longer grants access | Done""",
    "a revocation": """
        ann /requests/{request} /approve > +/revoke
        ann + /revoke > You revoked the access. Erin's access ended at | -/revoke""",
    "proposals": """
        ann /proposals > Rita &lt;b&gt; | rita@contoso.example | Takes effect
        tara /requests > proposes Rita
        tara /proposals > Rita
        ann /proposals /proposals/object > @/proposals | no pending admin proposals
        ann /requests > ~proposes
        tara + /proposals/object ! 409 accepted or withdrawn""",
}
SCENES: Mapping[str, Callable[[Portal], object]] = {
    "delegates": lambda portal: does(
        portal.world, "tara", members.set_eligible, id_of(portal.world, "aude"), eligible=True
    ),
    "proposals": lambda portal: does(
        portal.world, "olga", recovery.propose, name="Rita <b>", address="rita@contoso.example"
    ),
}
"""What is there before a dialogue begins."""


def named(portal: Portal, dialogue: str) -> dict[str, Any]:
    if scene := SCENES.get(dialogue):
        scene(portal)
    hook = does(portal.world, "tara", webhooks.add, webhooks.WebhookInput(URL), reach=REACH)
    strict = Policy(vendor_review=False, quorum=2, approval_window=600)
    return {
        **{name: caller.person_id for name, caller in portal.world.people.items()},
        "here": portal.here(),
        "slug": portal.world.tenant.slug,
        "request": portal.world.fresh().id,
        "hook": hook.endpoint.id,
        "nobody": uuid4(),
        "far": "2100-01-01T10:00",
        "near": f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%dT%H:%M}",
        "strict": json.dumps(strict.model_dump(mode="json")),
        "url": URL,
        "evil": "a\u202eb",
        "long": "x" * 2001,
    }


def lines(dialogue: str) -> Iterator[tuple[str, int, list[str]]]:
    """Yield for each line the words, the status, and what the page shows."""
    for line in dialogue.strip().splitlines():
        words, sign, rest = (*line.strip().partition(" > "),) if " > " in line else (*line.strip().partition(" ! "),)
        status = 200 if sign == " > " else int(rest[:3])
        shows = rest if sign == " > " else rest[4:]
        yield words, status, [one.strip() for one in shows.split(" | ") if one.strip()]


def fits(page: PortalPage, wanted: str) -> bool:
    match wanted[0]:
        case "~":
            return wanted[1:] not in page.text
        case "@":
            return page.path == wanted[1:]
        case "-" | "+":
            return any(form.action.endswith(wanted[1:]) for form in page.read.forms) is (wanted[0] == "+")
        case "&":
            name, _, value = wanted[1:].partition("=")
            return any(str(form.fields.get(name)).removeprefix("\n") == value for form in page.read.forms)
    return wanted in page.words


@pytest.mark.parametrize("dialogue", DIALOGUES)
def test_each_step_of_a_scripted_portal_session_shows_the_expected_page(
    open_portal: OpenPortal, dialogue: str
) -> None:
    portal = open_portal()
    names, browsers, pages = named(portal, dialogue), dict[str, Browser](), dict[str, PortalPage]()
    for words, status, shows in lines(DIALOGUES[dialogue]):
        who, path, *form = shlex.split(words.format(**names))
        browser = browsers.setdefault(who, portal.by_passkey(who))
        page = pages[who] if path == "+" else browser.get(path)
        if form:
            page = browser.submit(page, form[0], **dict(one.split("=", 1) for one in form[1:]))
        pages[who] = page
        assert set(page.read.named) <= page.read.labels, words
        assert all(script.startswith("/static/") for script in page.read.scripts)
        assert page.status == status, (words, page.words)
        assert [one for one in shows if not fits(page, one.format(**names))] == [], (words, page.words)
