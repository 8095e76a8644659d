"""Policies by forms: common terms, groups and tiers, and consent for a time; each form first shows its effect."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.people import HERE
from lockbox.admin import policies
from lockbox.facts.enumerations import Mode, Reason, State
from lockbox.requests import questions
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_parts import ApprovalStage, OverdueFinding
from lockbox.requests.policy_rules import Policy
from tests.database.tenancy import id_of, reads
from tests.http.portal import Browser, Filled, OpenPortal, Portal, PortalPage
from tests.policy_setup import group, lay_down

SWITCHED = ["report_on_close", "mail_link", "mail_justification"]


def held(portal: Portal) -> Policy:
    return reads(portal.world, "tara", policies.read).policy


def terms(portal: Portal, browser: Browser, **changes: Any) -> PortalPage:
    """Preview the form of the common terms with these changes."""
    fields: dict[str, str | list[str]] = dict(browser.get(portal.here("/policy")).form("/policy/terms").fields)
    fields |= {"switched": SWITCHED, "reasons": [str(one) for one in Reason]} | changes
    return browser.post(portal.here("/policy/terms"), fields)


def table(portal: Portal, browser: Browser, **changes: str | list[str]) -> Filled:
    """Return the form of groups: the desk with Ann, asked first, and legal with Amir, who must agree."""
    csrf = browser.get(portal.here("/tiers")).form("/sign-out").fields["csrf"]
    ann, amir = id_of(portal.world, "ann"), id_of(portal.world, "amir")
    fields: dict[str, str | list[str]] = {
        "csrf": csrf,
        "version": "1",
        "group": ["desk", "legal"],
        "tier": ["1", "2"],
        "quorum": ["0", "1"],
        "people": [f"0:{ann}", f"1:{amir}"],
        "escalation": "40",
    }
    return fields | changes


def test_saving_an_unchanged_policy_form_changes_nothing(portal: Portal) -> None:
    page = terms(portal, portal.by_passkey("tara"))

    assert "Nothing changes: this is the policy in force." in page.words


def test_common_policy_terms_are_changed_in_a_form_that_shows_the_changes_before_saving(portal: Portal) -> None:
    browser = portal.by_passkey("tara")

    asked = terms(
        portal,
        browser,
        approval_window_hours="1",
        approval_window_minutes="30",
        quorum="2",
        switched=[*SWITCHED, "require_case"],
        reasons=["support_case"],
        approval_reminders="25 75",
        overdue_finding="allow_and_alarm",
    )
    before = held(portal)
    saved = browser.submit(asked, "/policy/save")
    finders = "Any approver, delegate or admin of yours can give a finding, within a day of the opening."

    assert finders in browser.get(portal.here("/policy")).words
    assert "Time to answer approval_window 12 h → 1 h 30 min" in asked.words
    assert "Require a support case require_case no → yes" in asked.words
    assert "An overdue finding about break-glass overdue_finding block → allow_and_alarm" in asked.words
    assert before == Policy(vendor_review=False)
    assert (saved.status, saved.path) == (200, portal.here("/policy"))
    assert held(portal) == Policy(
        vendor_review=False,
        approval_window=5400,
        quorum=2,
        require_case=True,
        reasons=frozenset({Reason.SUPPORT_CASE}),
        approval_reminders=(25, 75),
        overdue_finding=OverdueFinding.ALLOW_AND_ALARM,
    )


@pytest.mark.far
def test_break_glass_is_switched_on_by_the_policy_form(portal: Portal) -> None:
    browser, max_ = portal.by_passkey("tara"), id_of(portal.world, "max")
    wanted = {"break_glass_services": "exchange-online", "break_glass_ceiling": "30", "break_glass_monthly": "1"}

    asked = terms(portal, browser, **wanted, break_glass_people=str(max_))
    browser.submit(asked, "/policy/save")
    again = terms(portal, browser)
    browser.submit(terms(portal, browser, break_glass_people="nobody"), "/policy/save")

    assert "Break-glass for break_glass_services not set → exchange-online" in asked.words
    assert "Nothing changes: this is the policy in force." in again.words
    assert held(portal) == Policy(
        vendor_review=False,
        break_glass_services=("exchange-online",),
        break_glass_people=(),
        break_glass_ceiling=1800,
        break_glass_monthly=1,
    )
    assert "Nothing changes: this is the policy in force." in terms(portal, browser).words


def test_saving_the_policy_form_changes_no_term_that_the_form_cannot_show(portal: Portal) -> None:
    lay_down(portal.world, access_ceiling=3601, groups={"legal": group(portal.world, "ann")})
    browser = portal.by_passkey("tara")

    browser.submit(terms(portal, browser, quorum="2"), "/policy/save")

    assert (held(portal).access_ceiling, held(portal).quorum) == (3601, 2)
    assert held(portal).groups == {"legal": (id_of(portal.world, "ann"),)}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"quorum": "many"}, "Approvals needed: Write a whole number."),
        ({"quorum": "0"}, "Approvals needed: Write 1 or more."),
        ({"quorum": "9"}, "has 3 people who could approve"),
        ({"approval_window_hours": "9999"}, "Time to answer: This may be 336 h (1209600 seconds) at most."),
        ({"approval_reminders": "soon"}, "Reminders to approvers"),
        ({"break_glass_ceiling": "61"}, "Longest access by break-glass: This may be 1 h (3600 seconds) at most."),
        ({"break_glass_people": "Max"}, "Vendor staff allowed to break glass: Write an id as it was given to you."),
        ({"reasons": []}, "Accepted reasons: Choose at least one."),
    ],
)
def test_impossible_policy_terms_are_reported_before_saving_and_stay_in_the_form(
    portal: Portal, changes: dict[str, Any], says: str
) -> None:
    page = terms(portal, portal.by_passkey("tara"), **{"access_ceiling_minutes": "7"} | changes)

    assert (page.status, says in page.words) == (422, True)
    form = page.form("/policy/terms").fields
    assert form["access_ceiling_minutes"] == "7"
    assert all(form[name] == value for name, value in changes.items() if isinstance(value, str))
    assert held(portal) == Policy(vendor_review=False)


def test_each_mistake_in_the_policy_form_is_shown_at_its_field_and_linked_at_the_top(portal: Portal) -> None:
    page = terms(
        portal,
        portal.by_passkey("tara"),
        quorum="many",
        approval_window_minutes="x",
        break_glass_ceiling="61",
        approval_reminders="soon",
        reasons=[],
    )

    places = (
        "quorum",
        "approval_window-hours",
        "break_glass_ceiling",
        "approval_reminders",
        "reason-support_case",
    )
    wrong = ("quorum", "approval_window", "break_glass_ceiling", "approval_reminders", "reasons")
    assert page.status == 422
    assert "Correct the fields that are marked below." in page.words
    assert {f"#{place}" for place in places} <= set(page.read.links)
    assert all(f'id="{place}"' in page.text for place in places)
    for name in wrong:
        assert f'id="wrong-{name}-1"' in page.text
    assert 'aria-invalid="true" aria-describedby="wrong-quorum-1 quorum-hint"' in page.text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{\n  "quorum": 1,,\n}', "Line 2, column 15: this is not JSON"),
        (
            '{"quorum": 0, "rules": [{"name": "x", "match": {}, "terms": {"quorum": 0}}]}',
            "rules.0.terms.quorum: write 1",
        ),
        ("[" * 20_000, "This is not JSON"),
    ],
)
def test_mistakes_in_the_policy_text_are_shown_next_to_the_text(portal: Portal, text: str, says: str) -> None:
    browser = portal.by_passkey("tara")

    page = browser.submit(browser.get(portal.here("/policy")), "/policy", text=text)

    assert (page.status, says.lower() in page.words.lower()) == (422, True)
    assert "#text" in page.read.links
    assert '<textarea id="text" name="text" aria-invalid="true" aria-describedby="wrong-text-1' in page.text
    assert page.form("/policy").fields["version"] == "1"


def test_the_policy_page_lists_pending_requests_with_the_effect_of_the_change(portal: Portal) -> None:
    request = portal.world.submit(access_window=3600)
    portal.wait(hours=1)

    page = terms(
        portal,
        portal.by_passkey("tara"),
        approval_window_hours="0",
        approval_window_minutes="30",
        quorum="2",
        access_ceiling_hours="0",
        access_ceiling_minutes="10",
        justification_least="500",
        switched=[*SWITCHED, "vendor_review"],
    )

    assert f"/requests/{request.id}" in page.read.links
    assert "It times out: under the new policy, its approval deadline has passed" in page.words
    assert "Nobody can approve it: Write at least 500 characters" in page.words
    assert "no manager of the vendor has reviewed it" in page.words
    assert "Needs 2 more approvals (was 1)" in page.words
    assert "Its access window becomes at most 10 min (was 1 h)" in page.words


def test_the_policy_page_does_not_count_time_paused_by_a_question_as_passed(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=False, questions_stop_clock=True, approval_window=3600))
    request = portal.world.submit()
    with portal.db.transaction() as session:
        questions.ask(session, portal.world.people["ann"], HERE, request.id, "Why?")
    portal.wait(minutes=40)
    shorter = {"approval_window_hours": "0", "approval_window_minutes": "30"}

    stands = terms(portal, portal.by_passkey("tara"), **shorter, switched=[*SWITCHED, "questions_stop_clock"])
    stands_no_more = terms(portal, portal.by_passkey("tara"), **shorter)

    assert "The time to approve it becomes 30 min" in stands.words
    assert "its approval deadline has passed" not in stands.words
    assert "its approval deadline has passed" in stands_no_more.words


def test_a_policy_change_has_the_predicted_effect_on_a_pending_request(portal: Portal) -> None:
    request = portal.world.submit()
    browser = portal.by_passkey("tara")
    asked = terms(portal, browser, quorum="2")

    browser.submit(asked, "/policy/save")
    first = portal.world.act("ann", Action.APPROVE, request.id)
    second = portal.world.act("amir", Action.APPROVE, request.id)

    assert "Needs 2 more approvals" in asked.words
    assert (first.state, second.state) == (State.PENDING, State.ACTIVE)


def test_loosening_a_policy_changes_nothing_for_pending_requests(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=False, quorum=2))
    portal.world.submit()

    page = terms(portal, portal.by_passkey("tara"), quorum="1")

    assert "Approvals needed quorum 2 → 1" in page.words
    assert "Nothing changes for 1 pending request." in page.words


def test_an_outdated_policy_form_cannot_be_saved(portal: Portal) -> None:
    browser = portal.by_passkey("tara")
    fields = browser.get(portal.here("/policy")).form("/policy/terms").fields
    lay_down(portal.world, quorum=3)

    late = browser.post(portal.here("/policy/terms"), fields | {"switched": SWITCHED, "reasons": ["other"]})

    assert "has changed since you opened it" in late.words
    assert not [form for form in late.read.forms if form.action.endswith("/save")]


def test_groups_tiers_and_required_approvals_are_set_by_a_form(portal: Portal) -> None:
    browser = portal.by_passkey("tara")

    asked = browser.post(portal.here("/tiers"), table(portal, browser, step=["1", "2"]))
    saved = browser.submit(asked, "/policy/save")
    shown = browser.get(portal.here("/tiers"))

    assert "The group desk groups.desk not set → Ann" in asked.words
    assert saved.status == 200
    assert held(portal).tiers == (("desk",), ("legal",))
    assert held(portal).stages == (ApprovalStage(group="legal", quorum=1, order=2),)
    assert held(portal).groups == {"desk": (id_of(portal.world, "ann"),), "legal": (id_of(portal.world, "amir"),)}
    assert held(portal).escalation == (40,)
    assert (
        "At once desk : Ann After 4 h 48 min (40 %) legal : Amir Required from legal , step 2 1 approval (Amir)"
        in shown.words
    )


def test_removing_a_group_moves_the_later_tiers_up(portal: Portal) -> None:
    browser = portal.by_passkey("tara")
    browser.submit(browser.post(portal.here("/tiers"), table(portal, browser)), "/policy/save")

    asked = browser.post(portal.here("/tiers"), table(portal, browser, gone=["0"], version="2"))
    browser.submit(asked, "/policy/save")

    assert (held(portal).tiers, list(held(portal).groups)) == ((("legal",),), ["legal"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"group": ["desk", "desk"]}, "Two groups have the same name"),
        ({"group": ["desk", ""]}, "Give the new group a name"),
        (
            {"group": ["desk", "Legal Desk"]},
            "A group cannot be called “Legal Desk”: use small letters, digits and hyphens, and begin",
        ),
        ({"quorum": ["0", "x"]}, "“Must also agree” of the group legal: write a whole number up to 20."),
        ({"quorum": ["0", "2"]}, "Must also agree: The group legal cannot give 2 approvals"),
        ({"people": ["0:x"]}, "The group desk: write an id as it was given to you"),
        ({"people": []}, "he group legal is empty"),
        ({"escalation": "x"}, "Write whole numbers"),
        ({"escalation": "100"}, "When the next tiers are asked, in percent: Write 99 or less."),
    ],
)
def test_impossible_policy_groups_are_reported_and_stay_in_the_form(
    portal: Portal, changes: dict[str, list[str] | str], says: str
) -> None:
    browser = portal.by_passkey("tara")

    page = browser.post(portal.here("/tiers"), table(portal, browser, **changes))

    assert (page.status, says in page.words) == (422, True)
    assert ">desk<" in page.text
    assert held(portal) == Policy(vendor_review=False)


def test_a_member_without_a_deciding_role_is_refused_in_a_policy_group(portal: Portal) -> None:
    browser, aude = portal.by_passkey("tara"), id_of(portal.world, "aude")

    page = browser.post(portal.here("/tiers"), table(portal, browser, people=[f"0:{aude}", f"1:{aude}"]))

    assert (page.status, "not an approver or eligible delegate" in page.words) == (422, True)


def test_the_form_for_consent_until_a_date_shows_and_saves_a_policy_change(portal: Portal) -> None:
    browser = portal.by_passkey("tara")
    until = datetime.now(UTC) + timedelta(days=2)

    asked = browser.submit(
        browser.get(portal.here("/mode")), "/mode/consent", mode="observe", until=f"{until:%Y-%m-%dT%H:%M}"
    )
    browser.submit(asked, "/policy/save")
    shown = browser.get(portal.here("/mode"))
    back = browser.submit(shown, "/mode/consent")
    browser.submit(back, "/policy/save")

    assert "The vendor decides for a time consent not set → observe until" in asked.words
    assert "Now: observe" in shown.words
    assert "It lasts until" in shown.words
    assert "observe until" in back.words
    assert held(portal).consent is None


@pytest.mark.parametrize("fields", [{"until": ""}, {"until": "soon"}, {"mode": "enforce"}, {"mode": "x"}])
def test_impossible_dates_of_consent_are_reported(portal: Portal, fields: dict[str, str]) -> None:
    browser = portal.by_passkey("tara")
    page = browser.get(portal.here("/mode"))

    answer = browser.submit(page, "/mode/consent", **{"mode": "observe", "until": "2100-01-01T10:00"} | fields)

    assert answer.status == 422
    assert answer.form("/mode/consent").fields["until"] == fields.get("until", "2100-01-01T10:00")


def test_vendor_opened_windows_are_listed_before_a_switch_to_enforce_closes_them(portal: Portal) -> None:
    browser = portal.by_passkey("tara")
    page = browser.submit(browser.get(portal.here("/mode")), "/mode", mode="observe")
    browser.submit(page, "/mode/save")
    request = portal.world.submit()
    portal.world.act("max", Action.ENDORSE, request.id)
    portal.world.submit()

    asked = browser.submit(browser.get(portal.here("/mode")), "/mode", mode="enforce")
    before = portal.sql("SELECT state FROM requests WHERE id = :id", id=request.id)
    browser.submit(asked, "/mode/save")
    after = portal.sql("SELECT state FROM requests WHERE id = :id", id=request.id)

    assert f"/requests/{request.id}" in asked.read.links
    assert "close at once" in asked.words
    assert "1 request is still in the vendor's review: once endorsed, it needs your approval." in asked.words
    assert [(row.state,) for row in (*before, *after)] == [("active",), ("revoked",)]


@pytest.mark.parametrize("mode", ["", "x", "ENFORCE"])
def test_switching_to_an_unknown_mode_is_reported(portal: Portal, mode: str) -> None:
    browser = portal.by_passkey("tara")

    page = browser.submit(browser.get(portal.here("/mode")), "/mode", mode=mode)

    assert (page.status, "Not accepted: Who decides: choose" in page.words) == (422, True)


def test_choosing_the_current_mode_is_no_switch(portal: Portal) -> None:
    browser = portal.by_passkey("tara")

    page = browser.submit(browser.get(portal.here("/mode")), "/mode", mode=Mode.ENFORCE)

    assert "Nothing changes: the mode is already enforce." in page.words
