"""Answer Envoy's gRPC questions (ext_authz) by asking Lockbox's gate: `lockbox-guard serve`.

Lockbox's catalogue says what a request uses, so this process keeps no windows. It passes questions on, and treats
everything but a clear yes in time as a no. Gateways with forward-auth ask the gate themselves.
"""

import argparse
import asyncio
import re
import signal
import sys
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path

import grpc
import httpx
from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import attribute_context_pb2, external_auth_pb2, external_auth_pb2_grpc
from envoy.type.v3 import http_status_pb2
from google.rpc import code_pb2, status_pb2

from lockbox_guard.connection import CREDENTIAL, GuardToken, LockboxAddress
from lockbox_guard.decisions import NoAccess
from lockbox_guard.refusal_answers import answer_for

ASK_SECONDS = 2.0
STOP_SECONDS = 2.0
MOST_CONNECTIONS = 64
MOST_CALLS = 1_000
TARGET = re.compile(r"/[!-~]{0,8191}")
OWN = "lockbox-"
YES = frozenset({"allow", "not-applicable", "would-deny"})
DROPPED = frozenset(
    {
        *("connection", "content-length", "expect", "host", "keep-alive", "proxy-connection", "te", "trailer"),
        *("transfer-encoding", "upgrade", CREDENTIAL.lower()),
    }
)
"""Headers that are not passed on: those of the call's connection or body, and this gateway's own credential."""
TOLD = frozenset({"content-type", "cache-control", "vary", "www-authenticate", "x-content-type-options"})
"""Headers of a refusal that are passed on, in addition to Lockbox's own."""


class EnvoyAuthorization(external_auth_pb2_grpc.AuthorizationServicer):  # type: ignore[misc] # it has no types
    """`envoy.service.auth.v3.Authorization`, for one service of the catalogue."""

    def __init__(self, address: LockboxAddress, token: GuardToken, service: str) -> None:
        self._token = token
        self._service = service
        self._client = address.client(connections=MOST_CONNECTIONS)

    async def close(self) -> None:
        await self._client.aclose()

    async def Check(  # noqa: N802 - the protocol's name
        self, request: external_auth_pb2.CheckRequest, _context: object
    ) -> external_auth_pb2.CheckResponse:
        """Only the call's method, host, target and headers count."""
        http = request.attributes.request.http
        sent = _headers(http)
        if not TARGET.fullmatch(http.path):
            return _denied(NoAccess("malformed", "The target of the call is not a path."), sent)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                answer = await self._ask(http, sent)
        except Exception:  # noqa: BLE001 - any error refuses the call
            return _denied(NoAccess("behind"), sent)
        told = {name: value for name, value in answer.headers.items() if name.startswith(OWN)}
        if answer.status_code == httpx.codes.OK and told.get("lockbox-decision") in YES:
            return _allowed(told, sent)
        if answer.status_code in {401, 403}:
            told |= {name: value for name, value in answer.headers.items() if name in TOLD}
            return _response(answer.status_code, told.items(), answer.text)
        return _denied(NoAccess("behind"), sent)

    async def _ask(
        self, http: attribute_context_pb2.AttributeContext.HttpRequest, sent: Mapping[str, str]
    ) -> httpx.Response:
        headers = [(name, value) for name, value in sent.items() if not name.startswith(":") and name not in DROPPED]
        headers += [(CREDENTIAL, self._token.read()), ("host", http.host)]
        path = f"/gate/v1/{self._service}"
        # The target is sent as it is: httpx would spell a URL in another way, and Lockbox would judge another target.
        request = self._client.build_request(
            http.method, path, headers=headers, extensions={"target": (path + http.path).encode("ascii")}
        )
        return await self._client.send(request)


def _headers(http: attribute_context_pb2.AttributeContext.HttpRequest) -> dict[str, str]:
    return {name.lower(): value for name, value in http.headers.items()}


def _allowed(told: Mapping[str, str], sent: Iterable[str]) -> external_auth_pb2.CheckResponse:
    """Let a call in; Lockbox's headers replace those of the client."""
    forged = [name for name in sent if name.startswith(OWN) and name not in told]
    ok = external_auth_pb2.OkHttpResponse(headers=_options(told.items()), headers_to_remove=forged)
    return external_auth_pb2.CheckResponse(status=status_pb2.Status(code=code_pb2.OK), ok_response=ok)


def _denied(no: NoAccess, sent: Mapping[str, str]) -> external_auth_pb2.CheckResponse:
    answer = answer_for(no, accept=sent.get("accept", ""))
    headers = [(name, value) for name, value in answer.headers if name != "content-length"]
    return _response(answer.status, headers, answer.body.decode())


def _response(status: int, headers: Iterable[tuple[str, str]], body: str) -> external_auth_pb2.CheckResponse:
    code = code_pb2.UNAUTHENTICATED if status == httpx.codes.UNAUTHORIZED else code_pb2.PERMISSION_DENIED
    denied = external_auth_pb2.DeniedHttpResponse(
        status=http_status_pb2.HttpStatus(code=status), headers=_options(headers), body=body
    )
    return external_auth_pb2.CheckResponse(status=status_pb2.Status(code=code), denied_response=denied)


def _options(headers: Iterable[tuple[str, str]]) -> list[base_pb2.HeaderValueOption]:
    overwrite = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    return [
        base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key=name, value=value), append_action=overwrite)
        for name, value in headers
    ]


async def serve(authorization: EnvoyAuthorization, listen: str, started: "asyncio.Future[int]") -> None:
    """Serve until cancelled; `started` gets the port (1 for a socket in the file system).

    Raises:
        ValueError: the address is not on this machine; the traffic is not encrypted.
    """
    host = listen.rpartition(":")[0]
    if not listen.startswith("unix:/") and not ip_address(host.strip("[]")).is_loopback:
        raise ValueError("listen on an address of this machine, such as 127.0.0.1:9191, or on unix:/path")
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)], maximum_concurrent_rpcs=MOST_CALLS)
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(authorization, server)
    port = server.add_insecure_port(listen)
    await server.start()
    started.set_result(port)
    try:
        await server.wait_for_termination()
    finally:
        await server.stop(STOP_SECONDS)
        await authorization.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="lockbox-guard", description=__doc__)
    serving = parser.add_subparsers(required=True).add_parser("serve", help="answer Envoy's ext_authz over gRPC")
    serving.add_argument("--lockbox", required=True, help="address of Lockbox, such as https://lockbox.example")
    serving.add_argument("--token-file", required=True, type=Path, help="holds a token with the scope gate:envoy")
    serving.add_argument("--service", required=True, help="as in Lockbox's catalogue")
    serving.add_argument("--ca-file", type=Path, help="certificates by which Lockbox's is judged")
    serving.add_argument("--listen", default="127.0.0.1:9191", help="of this machine, or unix:/path (%(default)s)")
    asked = parser.parse_args()
    try:
        asyncio.run(_serve_until_told(asked))
    except (OSError, RuntimeError, ValueError) as wrong:
        sys.exit(f"lockbox-guard: {wrong}")


async def _serve_until_told(asked: argparse.Namespace) -> None:
    token = GuardToken(asked.token_file)
    token.read()
    authorization = EnvoyAuthorization(LockboxAddress(asked.lockbox, asked.ca_file), token, asked.service)
    loop = asyncio.get_running_loop()
    started: asyncio.Future[int] = loop.create_future()
    started.add_done_callback(lambda _: sys.stderr.write(f"lockbox-guard: listening on {asked.listen}\n"))
    task = asyncio.ensure_future(serve(authorization, asked.listen, started))
    for one in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(one, task.cancel)
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()
