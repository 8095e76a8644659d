"""Whatever people write, a mail can be made of it, says it, and keeps its form."""

import email
from email.policy import default

from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox.notices.senders.smtp import compose
from tests.unit.letter import mail

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1, max_size=60)


@settings(max_examples=30, deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_any_text_makes_a_mail_with_one_of_each_header(name: str, why: str, comment: str) -> None:
    made = mail(requester=name, recipient_name=name, justification=why, case_ref=why, comment=comment)

    raw = compose(made, "Lockbox <lockbox@vendor.example>").as_bytes()

    read = email.message_from_bytes(raw, policy=default)
    assert sorted(read.keys()) == sorted(
        {
            "From",
            "To",
            "Subject",
            "Date",
            "Message-ID",
            "In-Reply-To",
            "References",
            "Auto-Submitted",
            "MIME-Version",
            "Content-Type",
        }
    )
    assert [part.get_content_type() for part in read.iter_parts()] == ["text/plain", "text/html"]
    assert len(read["To"].addresses) == 1
    assert read["To"].addresses[0].addr_spec == "ann@contoso.example"
    assert "never ask you to approve by" in next(read.iter_parts()).get_content()
