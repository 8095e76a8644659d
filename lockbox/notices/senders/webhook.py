"""Webhooks by the Standard Webhooks specification: signed, never redirected, within a total deadline."""

import asyncio
import ssl
import time
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
from standardwebhooks import Webhook

from lockbox.notices.senders.protocol import SEND_SECONDS, Hook, SendFailed

MOST_ANSWER_BYTES = 64 * 1024
GONE = 410


class HttpHooks:
    """Calls webhooks over HTTPS; plain HTTP only where a development setting allows it."""

    def __init__(self, *, allow_http: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self._allow_http = allow_http
        self._tls = tls or ssl.create_default_context()

    def send(self, hook: Hook) -> None:
        """Deliver the call; only an answer of 2xx counts.

        Raises:
            SendFailed: it was not taken; permanent on 410 Gone, or if the address may not be called at all.
        """
        scheme = urlsplit(hook.url).scheme
        if scheme != "https" and not (scheme == "http" and self._allow_http):
            raise SendFailed("the address is not https", permanent=True)
        try:
            status = asyncio.run(asyncio.wait_for(self._post(hook), SEND_SECONDS))
        except (TimeoutError, httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise SendFailed(f"the endpoint failed: {type(error).__name__}") from error
        if not httpx.codes.is_success(status):
            raise SendFailed(f"the endpoint answered {status}", permanent=status == GONE)

    async def _post(self, hook: Hook) -> int:
        async with (
            httpx.AsyncClient(
                verify=self._tls, trust_env=False, follow_redirects=False, timeout=SEND_SECONDS
            ) as http,
            http.stream("POST", hook.url, content=hook.body, headers=signed(hook)) as answer,
        ):
            read = 0
            async for part in answer.aiter_raw():
                read += len(part)
                if read > MOST_ANSWER_BYTES:
                    break
            return answer.status_code


def signed(hook: Hook) -> dict[str, str]:
    """Return the headers: the id is that of the notice for every try, the time-stamp that of this one."""
    at = datetime.fromtimestamp(int(time.time()), tz=UTC)
    signature = Webhook(hook.secret).sign(hook.hook_id, at, hook.body.decode())
    return {
        "webhook-id": hook.hook_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature,
        "content-type": "application/json",
        "user-agent": "Lockbox",
    }
