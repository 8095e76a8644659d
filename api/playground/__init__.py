"""The playground of `make run`: be anybody at a click, and read everybody's mails; on one's own machine alone."""

from fastapi import FastAPI

from api.playground import cast, inbox, play
from api.playground.cast import DemoUsers
from config.settings import Settings


def install(app: FastAPI, settings: Settings) -> None:
    """Add its pages where it is on; in production there are none, whatever the settings say.

    Raises:
        UnsafeSettings: its file cannot be read.
    """
    if settings.playground is None or settings.environment == "production":
        return
    found: DemoUsers = cast.read(settings.playground)
    app.state.playground = found
    app.include_router(play.router)
    app.include_router(inbox.router)
