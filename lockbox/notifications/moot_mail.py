"""Decide which mails nobody needs any more, at the moment of sending; a moot mail is not sent."""

from lockbox.notifications.audience import PROMPTS, REMINDERS, REPORT

# Of a mail about no request: what it offers was taken, withdrawn or has run out, or nobody can use it any more.
IS_SETTLED = """CASE WHEN i.id IS NOT NULL THEN i.accepted_at IS NOT NULL OR i.withdrawn_at IS NOT NULL
            OR i.expires_at <= clock_timestamp()
        WHEN s.id IS NOT NULL THEN s.used_at IS NOT NULL OR s.expires_at <= clock_timestamp()
            OR w.id IS NULL OR w.disabled_at IS NOT NULL
        WHEN f.id IS NOT NULL THEN f.is_settled OR f.expires_at <= clock_timestamp()
        WHEN g.id IS NOT NULL THEN g.ended_at IS NOT NULL OR g.ends_at <= clock_timestamp()
        ELSE n.about_id IS NOT NULL END"""


def is_moot(template: str, state: str, *, has_decided: bool, wants_report: bool) -> bool:
    """Whether nobody needs a mail any more: the state that it asks about is over, or its recipient has decided.

    Args:
        template: of the mail.
        state: in which the request is now.
        has_decided: whether the recipient has.
        wants_report: whether the policy wants a report and there is a window to report on.
    """
    if template == REPORT:
        return not wants_report
    if template in REMINDERS and has_decided:
        return True
    return template in PROMPTS and state != PROMPTS[template]
