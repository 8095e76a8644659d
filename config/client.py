"""Settings of the command line."""

from pathlib import Path

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from catalogue.unsafe_settings import UnsafeSettings


class ClientSettings(BaseSettings):
    """A token is never an argument of a command: other users of the machine can read arguments."""

    model_config = SettingsConfigDict(env_prefix="LOCKBOX_", frozen=True, extra="ignore", hide_input_in_errors=True)

    url: str = "http://127.0.0.1:8000"
    token: SecretStr | None = None
    catalogue: Path | None = None
    state_home: Path = Field(default=Path("~/.local/state"), validation_alias="XDG_STATE_HOME")

    @property
    def kept_at(self) -> Path:
        return self.state_home.expanduser() / "lockbox" / "sign-in.json"


def load_client() -> ClientSettings:
    try:
        return ClientSettings()
    except ValidationError:
        raise UnsafeSettings("LOCKBOX_URL, LOCKBOX_TOKEN or XDG_STATE_HOME is not what it should be") from None
