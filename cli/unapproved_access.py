"""Show in the terminal what can open without a tenant's approval."""

from collections.abc import Mapping
from typing import Any

from cli.terminal import Facts, Listing, Part
from cli.values import Phrase, moment, phrase

WAYS = {
    "mode": "the mode",
    "consent": "consent for a time",
    "gate_report": "gates that only report",
    "pre_approval": "pre-approvals",
    "break_glass": "break-glass",
    "delegate": "approvals by delegates",
}
NOTHING = "Nothing: nobody from the vendor gets access without the customer's approval."


def parts(answer: Mapping[str, Any]) -> tuple[Part, ...]:
    lately = {one["way"]: one for one in answer["opened"]}
    rows = ((words, way in answer["ways"], _opened(lately[way])) for way, words in WAYS.items())
    can = ", ".join(words for way, words in WAYS.items() if way in answer["ways"])
    facts = {"Can open without approval": can or NOTHING} | _details(answer)
    return Facts(facts), "", Listing.of(("Way", "Can open", "In the last 90 days"), rows)


def _opened(one: Mapping[str, Any]) -> str | Phrase:
    if not one["count"]:
        return "none"
    return phrase(f"{one['count']}, the newest {one['newest']}, ", moment(one["at"]))


def _details(answer: Mapping[str, Any]) -> dict[str, object]:
    found: dict[str, object] = {"Mode": answer["mode"]}
    if consent := answer["consent"]:
        found["Consent until"] = moment(consent["until"])
    if gates := answer["gates"]:
        found["Gates that only report"] = ", ".join(gate["service"] for gate in gates)
    for number, one in enumerate(answer["pre_approvals"], 1):
        used = f"{one['resource']} in {one['service']}, used {one['used']} of {one['max_uses']} times, until "
        found[f"Pre-approval {number}"] = phrase(used, moment(one["ends_at"]))
    if glass := answer["break_glass"]:
        who = "anybody" if glass["people"] is None else ", ".join(one["name"] for one in glass["people"])
        often = f"{glass['lately']} of {glass['monthly']} within 30 days"
        found["Break-glass"] = f"{', '.join(glass['services'])}, two of the vendor ({who}), {often}{_barred(glass)}"
    for number, one in enumerate(answer["delegations"], 1):
        names = f"{one['delegate']['name']} for {one['principal']['name']}, until "
        found[f"Delegate {number}"] = phrase(names, moment(one["ends_at"]))
    return found


def _barred(glass: Mapping[str, Any]) -> str:
    bars = {
        "an emergency stop": glass["stopped_since"],
        "an overdue finding": glass["overdue"] and glass["overdue_finding"] == "block",
    }
    by = " and ".join(name for name, is_so in bars.items() if is_so)
    return f"; barred now by {by}" if by else ""
