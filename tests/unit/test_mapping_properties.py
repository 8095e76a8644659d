"""Properties of the gate's mapping: what was mapped tells the request, and each refusal says why."""

from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from gate.mapping import GateCall, MappedCall, MappingRefused, ServiceMapping
from gate.request_target import PATH_MARKS, QUERY_MARKS, explain, target_pattern
from tests.unit.gate_examples import HOST, mapping, rule

RULES = (
    rule("/mailboxes/{address}", "mailbox:{address}"),
    rule("/sites/{site}/files/{file}/", "file:{site}/{file}", "change"),
    rule("/search", "found:{word}", "{verb}", word="{word}", do="{verb}"),
)
PLAIN = mapping(*RULES, ignored=())
ESCAPING = mapping(*RULES, ignored=(), escaped="@:+")
WORDS = (
    "/ // mailboxes sites files search a B @ : + = & ? # ; * . .. word= do=read do=change { "
    "% %2F %2f %41 %40 %20 %25 %C3%A9 %c3 %00 %3A %2B"
)
PIECES = st.sampled_from([*WORDS.split(), '"', "\\", " ", "\x00", "\u00e9"])
TARGETS = st.one_of(
    st.lists(PIECES, max_size=12).map("".join),
    st.lists(PIECES, max_size=6).map(lambda parts: "/mailboxes/" + "".join(parts)),
    st.lists(PIECES, max_size=6).map(lambda parts: "/search?do=read&word=" + "".join(parts)),
    st.text(max_size=30).map(lambda text: f"/mailboxes/{quote(text, safe=PATH_MARKS)}"),
    st.text(max_size=30),
)
MADE = st.sampled_from([(PLAIN, ""), (ESCAPING, "@:+")])


def taken(made: ServiceMapping, target: str) -> MappedCall | None:
    """Return what a request is mapped to, if it is."""
    try:
        return made.map(GateCall("GET", target, HOST))
    except MappingRefused:
        return None


def again(call: MappedCall, escaped: str, order: str) -> str:
    """Return the one target that is mapped to this call, with its parameters in this target's order."""
    in_path = "".join(mark for mark in PATH_MARKS if mark not in escaped)
    in_query = "".join(mark for mark in QUERY_MARKS if mark not in escaped)
    kind, _, name = call.resource.partition(":")
    if kind == "mailbox":
        return f"/mailboxes/{quote(name, safe=in_path)}"
    if kind == "file":
        site, _, file = name.partition("/")
        return f"/sites/{quote(site, safe=in_path)}/files/{quote(file, safe=in_path)}/"
    pairs = [f"word={quote(name, safe=in_query)}", f"do={call.action}"]
    return f"/search?{'&'.join(pairs if order.startswith('/search?word') else pairs[::-1])}"


@settings(deadline=None)
@given(MADE, TARGETS)
def test_what_is_mapped_leads_back_to_the_one_target_that_it_came_from(
    made: tuple[ServiceMapping, str], target: str
) -> None:
    service, escaped = made

    found = taken(service, target)

    assert found is None or again(found, escaped, target) == target


@settings(deadline=None)
@given(MADE, TARGETS, TARGETS)
def test_no_two_targets_are_mapped_to_the_same(made: tuple[ServiceMapping, str], one: str, other: str) -> None:
    first, second = taken(made[0], one), taken(made[0], other)

    if first is not None and first == second:
        assert sorted(one.partition("?")[2].split("&")) == sorted(other.partition("?")[2].split("&"))
        assert one.partition("?")[0] == other.partition("?")[0]


@settings(deadline=None)
@given(MADE, st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zs"], exclude_characters="/\\;%?#*")))
def test_an_address_in_its_one_spelling_is_mapped_to_itself(made: tuple[ServiceMapping, str], address: str) -> None:
    service, escaped = made
    safe = "".join(mark for mark in PATH_MARKS if mark not in escaped)

    found = taken(service, f"/mailboxes/{quote(address, safe=safe)}")

    assert found is None or found.resource == f"mailbox:{address}"
    if address.isascii() and address and not address.endswith(".") and len(address) <= 220 and " " not in address:
        assert found is not None


@settings(deadline=None)
@given(st.sampled_from(["", "@:+"]), TARGETS)
def test_a_target_is_refused_for_a_reason_of_its_own(escaped: str, target: str) -> None:
    if target_pattern(escaped).fullmatch(target) is None:
        said = explain(target, escaped)

        assert not said.startswith("write the target as a path"), "only what nobody thought of is told that"
        assert said.isascii()


def test_a_variable_matches_one_segment_of_a_request_literally() -> None:
    found = taken(PLAIN, "/mailboxes/mailboxes")

    assert found is not None
    assert found.resource == "mailbox:mailboxes"
