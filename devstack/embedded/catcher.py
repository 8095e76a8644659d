"""The mail catcher process: `python -m devstack.embedded.catcher FOLDER PORT [UID GID]`."""

import asyncio
import mailbox
import os
import signal
import socket
import sys
from pathlib import Path

from aiosmtpd.smtp import SMTP, Envelope, Session

MESSAGE_BYTES = 1024 * 1024


class MaildirHandler:
    def __init__(self, maildir: Path) -> None:
        self._maildir = mailbox.Maildir(maildir)

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's
        recipients = ", ".join(envelope.rcpt_tos)
        head = f"X-MailFrom: {envelope.mail_from}\nX-RcptTo: {recipients}\n".encode()
        content = envelope.original_content or b""
        self._maildir.add(head + content.replace(b"\r\n", b"\n"))
        return "250 OK"


async def serve(listener: socket.socket, maildir: Path) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    handler = MaildirHandler(maildir)

    def session() -> SMTP:
        return SMTP(
            handler,
            data_size_limit=MESSAGE_BYTES,
            enable_SMTPUTF8=True,
            hostname="localhost",
            ident="Lockbox mail catcher",
            loop=loop,
        )

    server = await loop.create_server(session, sock=listener)
    await ended.wait()
    server.close()


def main() -> None:
    folder, port, *account = sys.argv[1:]
    if account:
        uid, gid = map(int, account)
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    os.umask(0o077)
    os.chdir(folder)
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=128)
    log = os.open("mail.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    pid = os.fork()
    if pid:
        sys.stdout.write(f"{pid}\n")
        return
    os.setsid()
    for stream in (1, 2):
        os.dup2(log, stream)
    asyncio.run(serve(listener, Path("mail").absolute()))


if __name__ == "__main__":
    main()
