"""The services and plans of an installation, as an operator names them, and samples for development."""

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
)


class Service(BaseModel):
    """One entry of the service catalogue: what an engineer may ask for."""

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
    """What a tenant has bought: `lockbox` lets it switch to `enforce`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lockbox: bool = True


def _sample_plans() -> dict[str, Plan]:
    return {"standard": Plan()}
