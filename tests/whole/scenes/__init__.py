"""Scenes: each sends some forms of the pages as the people whom they are for, rightly, and wrongly where one can."""

from collections.abc import Callable

from tests.whole.forms import Book

Scene = Callable[[Book], None]
SCENES: list[Scene] = []


def scene(play: Scene) -> Scene:
    SCENES.append(play)
    return play
