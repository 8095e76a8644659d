"""Scenes: each sends some forms of the pages as their users, with valid and, where possible, invalid input."""

from collections.abc import Callable

from tests.whole.forms import Book

Scene = Callable[[Book], None]
SCENES: list[Scene] = []


def scene(play: Scene) -> Scene:
    SCENES.append(play)
    return play
