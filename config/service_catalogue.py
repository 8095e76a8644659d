"""Define the catalogue of an installation: the services, for which engineers request access, and the plans."""

import re
from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from config.catalogue_yaml import CatalogueProblem

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
MOST_ACTIONS = 50
MOST_SERVICES = 500
MOST_PLANS = 100


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("write a name of small letters, digits, - and _ only, at most 63, such as exchange-online")
    return name


def _check_title(title: str) -> str:
    if title != title.strip() or not title.isprintable():
        raise ValueError("write a title on one line, without blanks around it")
    return title


CatalogueName = Annotated[str, AfterValidator(_check_name)]
Title = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_check_title)]


class InconsistentCatalogue(ValueError):  # noqa: N818 - it names what was found
    """Parts of a catalogue contradict each other; `problems` says where."""

    def __init__(self, problems: Iterable[CatalogueProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.message for problem in self.problems))


class CataloguePart(BaseModel):
    """A part of the catalogue: unknown fields are refused, and a number or a switch is never made from text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Service(CataloguePart):
    """One service in the catalogue, for which engineers may request access."""

    title: Title
    actions: tuple[CatalogueName, ...] = Field(
        default=("read", "change", "export"), min_length=1, max_length=MOST_ACTIONS
    )


class Plan(CataloguePart):
    """A tenant's plan: `lockbox` allows `enforce`."""

    lockbox: bool = True


class Catalogue(CataloguePart):
    """Everything that `LOCKBOX_CATALOGUE` says."""

    services: dict[CatalogueName, Service] = Field(min_length=1, max_length=MOST_SERVICES)
    plans: dict[CatalogueName, Plan] = Field(min_length=1, max_length=MOST_PLANS)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if problems := list(self._problems()):
            raise InconsistentCatalogue(problems)
        return self

    def _problems(self) -> Iterable[CatalogueProblem]:
        for name, service in self.services.items():
            for number, action in enumerate(service.actions):
                if action in service.actions[:number]:
                    yield CatalogueProblem(("services", name, "actions", number), "name each action once")
