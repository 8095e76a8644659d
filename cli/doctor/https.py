"""Check of the certificate that browsers get for the pages, and when it expires."""

import socket
import ssl
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from cli.doctor.findings import DoctorFinding, failure, warning, well
from config.settings import LOOPBACK, Settings

CHECK = "TLS"
VARIABLE = "LOCKBOX_PUBLIC_URL"
SECONDS = 5.0
DAY = 86_400
WARNED_DAYS = 14
PORT = 443


def check_https(settings: Settings) -> Iterator[DoctorFinding]:
    """Runs only where this machine runs the API."""
    if settings.database_url is None:
        return
    parts = urlsplit(settings.public_url)
    host = parts.hostname or ""
    if not settings.is_https:
        if host not in LOOPBACK:
            fix = f"put a proxy with TLS before it, and write https in {VARIABLE}"
            yield failure(CHECK, f"{settings.public_url} is not encrypted", fix)
        else:
            yield well(CHECK, f"{settings.public_url} is for this machine alone")
        return
    try:
        ends = _valid_until(host, parts.port or PORT)
    except ssl.SSLCertVerificationError as error:
        fix = f"get a certificate for {host} from an authority that browsers know, with all that is between"
        yield failure(CHECK, f"browsers refuse the certificate of {host}: {error.verify_message}", fix)
    except OSError as error:
        fix = f"start the proxy before the API, or check the name in {VARIABLE}; or this machine may not reach it"
        yield warning(CHECK, f"{settings.public_url} does not answer ({_why(error)})", fix)
    else:
        yield _lasting(host, (ends - time.time()) / DAY)


def _valid_until(host: str, port: int) -> float:
    """In seconds since 1970."""
    context = ssl.create_default_context()
    with (
        socket.create_connection((host, port), timeout=SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as encrypted,
    ):
        certificate = encrypted.getpeercert() or {}
    return float(ssl.cert_time_to_seconds(str(certificate["notAfter"])))


def _lasting(host: str, days: float) -> DoctorFinding:
    if days < WARNED_DAYS:
        return warning(CHECK, f"the certificate of {host} ends in {days:.0f} days", "renew it; better, automatically")
    return well(CHECK, f"browsers accept the certificate of {host}, for {days:.0f} days")


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
