"""Check of the mail relay; no mail is sent."""

import asyncio
import ssl
from collections.abc import Iterator
from email.utils import parseaddr
from urllib.parse import urlsplit

from cli.doctor.findings import DoctorFinding, failure, warning, well
from config.settings import LOOPBACK, Settings
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.notifications.senders.smtp import SmtpMail
from lockbox.notifications.senders.smtp_client import WANTS_LOGIN

CHECK = "Mail relay"
VARIABLE = "LOCKBOX_SMTP_URL"
SECONDS = 10.0
REACH = f"check the host and port in {VARIABLE}, and whether a firewall lets this machine out"
FIXES = {
    "certificate": f"use the name of its certificate in {VARIABLE}, or set LOCKBOX_SMTP_CA_FILE to its authority",
    "unsupported": f"check the scheme in {VARIABLE}: smtps:// encrypts at once, smtp+starttls:// after the greeting",
    "status": f"check the user and the password in {VARIABLE}",
}
LOG_IN = f"the relay wants a login: write its user and password into {VARIABLE}, as smtps://USER:PASSWORD@HOST"


def check_mail_relay(settings: Settings) -> Iterator[DoctorFinding]:
    if settings.smtp_url is None:
        return
    url = settings.smtp_url.get_secret_value()
    try:
        asyncio.run(_try_out(settings, url))
    except SendFailed as failed:
        wants_login = failed.reply.status == WANTS_LOGIN
        yield failure(CHECK, str(failed), LOG_IN if wants_login else FIXES.get(failed.kind, REACH))
    except (OSError, ssl.SSLError) as error:
        yield failure(CHECK, f"LOCKBOX_SMTP_CA_FILE can't be used: {error}", "name a file of certificates in PEM")
    else:
        yield well(CHECK, "reached, and it would take a mail")
    host = urlsplit(url).hostname or ""
    if host not in LOOPBACK and parseaddr(settings.mail_from)[1].endswith("@localhost"):
        yield warning(
            CHECK, f"LOCKBOX_MAIL_FROM is {settings.mail_from}, which most relays refuse", "name an address of yours"
        )


async def _try_out(settings: Settings, url: str) -> None:
    relay = SmtpMail(url, sender=settings.mail_from, ca_file=settings.smtp_ca_file, seconds=SECONDS)
    try:
        await relay.check()
    finally:
        await relay.close()
