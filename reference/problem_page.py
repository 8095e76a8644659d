"""The page of problems: every code that an answer may have, from the error classes."""

from api.problems import every_code
from gate.answers import SENTENCES
from reference.markdown import head, table

INTRODUCTION = """
A refusal is `application/problem+json` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)): `type` is
`urn:lockbox:problem:CODE`, `title` the status in words, `code` what a program compares, and `detail` a sentence for
people that says what to do. Codes do not change; sentences may. Some problems have further members, named below.
A 429 and a 503 have the header `Retry-After`: in so many seconds the same call may succeed.
"""
GATE = """
## At the gate

`GET /gate/v1/SERVICE` answers only 200, 401 and 403. A no has its reason in `Lockbox-Reason`, which is also the
problem's `code`; its `type` is `urn:lockbox:problem:gate-CODE`.

"""


def page() -> str:
    """Return the page."""
    rows = [(str(one.status), f"`{one.code}`", one.meaning) for one in every_code()]
    reasons = [(f"`{reason.value}`", said) for reason, said in sorted(SENTENCES.items())]
    problems = table(("status", "code", "meaning"), rows)
    return head("Problems", INTRODUCTION) + "\n" + problems + GATE + table(("code", "meaning"), reasons)
