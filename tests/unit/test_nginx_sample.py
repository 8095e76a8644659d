"""The sample for nginx, which shows the gate's sentences itself: nginx drops the body of the gate's answer."""

import re

from devstack.stack import CHECKOUT
from gate.answers import SENTENCES, Denial, GateReason

SAMPLE = (CHECKOUT / "deploy" / "gateways" / "nginx.conf").read_text()


def block(variable: str) -> str:
    found = re.search(rf"map \$\w+ \${variable} {{\n(.*?)\n    }}", SAMPLE, re.DOTALL)
    assert found is not None, variable
    return found[1]


def test_the_nginx_sample_has_the_gates_sentence_for_each_reason() -> None:
    written = dict(re.findall(r'^ +(\w+) +"(.*)";$', block("lockbox_detail"), re.MULTILINE))

    assert written.pop("default")
    assert written == {reason.value: sentence for reason, sentence in SENTENCES.items()}


def test_no_refusal_sentence_contains_characters_that_break_the_nginx_answer() -> None:
    assert not [one for one in SENTENCES.values() if set(one) & set('"\\<>&$')]


def test_the_nginx_sample_has_the_gates_title_for_each_reason() -> None:
    (pattern, title), *rest = re.findall(r'^ +"~(.*)" +"(.*)";$', block("lockbox_title"), re.MULTILINE)
    default = re.search(r'default +"(.*)";', block("lockbox_title"))

    assert not rest
    assert default is not None
    for reason in GateReason:
        shown = title if re.search(pattern, reason.value) else default[1]
        assert shown == Denial(reason).title, reason
