"""Sign this terminal in through a browser, and sign it out."""

import platform
import time
from typing import Annotated, Any

import typer

from cli import saved_token
from cli.client import at, call, chosen, stop, warn
from cli.terminal import say
from lockbox.identity.authentication import TOKEN_FORM

ENDED = {
    "refused": "it was refused on the page",
    "over": "nobody allowed it in time; run `lockbox sign-in` again",
}

app = typer.Typer()

Printed = Annotated[bool, typer.Option("--print", help="print the token instead of saving it")]


@app.command("sign-in")
def sign_in(printed: Printed = False) -> None:
    """Sign this terminal in, by your browser.

    Open the page, sign in with a passkey or your identity provider, and type the code. For 15 minutes commands act as
    you, with the strength of that sign-in; they cannot approve.
    """
    where = chosen()
    asked = call(
        "POST", at("device-logins"), headers={"user-agent": f"lockbox on {platform.node()}"}, is_anonymous=True
    )
    warn(f"Open {asked['verification_uri']} and type this code, in a browser of yours:")
    warn(f"\n    {asked['user_code']}\n")
    _wait(asked)
    minutes = asked["token_expires_in"] // 60
    if printed:
        warn(f"Signed in for {minutes} minutes. The token is shown once; LOCKBOX_TOKEN takes it:")
        print(asked["token"])
        return
    saved_token.keep(where.kept_at, where.url, asked["token"])
    say(f"Signed in for {minutes} minutes.")
    if where.token is not None:
        warn("LOCKBOX_TOKEN is set and comes first: unset it to act by this sign-in.")


@app.command("sign-out")
def sign_out() -> None:
    """Sign this terminal out and revoke its token."""
    where = chosen()
    try:
        found = saved_token.read(where.kept_at, where.url)
    except saved_token.TokenExposed:
        found = None
    saved_token.forget(where.kept_at)
    parts = TOKEN_FORM.fullmatch(found.token) if found else None
    if found is None or parts is None:
        say("This terminal was not signed in.")
        return
    bearing = {"authorization": f"Bearer {found.token}"}
    call("DELETE", at("tokens", parts["id"]), headers=bearing, is_anonymous=True)
    say("Signed out.")


def _wait(asked: dict[str, Any]) -> None:
    state = "waiting"
    while state == "waiting":
        time.sleep(asked["interval"])
        body = {"token": asked["token"]}
        state = call("POST", at("device-logins", "state"), body=body, is_anonymous=True)["state"]
    if state != "allowed":
        raise stop(ENDED[state])
