"""The demo playground of `make run`, on this machine only."""

from fastapi import FastAPI

from api.playground import demo_users, mails, play
from api.playground.demo_users import DemoUsers
from config.settings import Settings


def install(app: FastAPI, settings: Settings) -> None:
    """Never called in production."""
    if settings.playground is None or settings.environment == "production":
        return
    found: DemoUsers = demo_users.read(settings.playground)
    app.state.playground = found
    app.include_router(play.router)
    app.include_router(mails.router)
