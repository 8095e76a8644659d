"""Define the service catalogue and the plans, with samples for development."""

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)


class Service(BaseModel):
    """One service in the catalogue, for which engineers may request access."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, max_length=100)
    actions: tuple[str, ...] = ("read", "change", "export")


def _sample_services() -> dict[str, Service]:
    return {
        "exchange-online": Service(title="Exchange Online"),
        "sharepoint-online": Service(title="SharePoint Online"),
        "onedrive": Service(title="OneDrive"),
    }


class Plan(BaseModel):
    """A tenant's plan: `lockbox` allows `enforce`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lockbox: bool = True


def _sample_plans() -> dict[str, Plan]:
    return {"standard": Plan()}
