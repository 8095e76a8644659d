"""What the command line needs to know: where the API is, and who is calling."""

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from config.settings import UnsafeSettings


class ClientSettings(BaseSettings):
    """`LOCKBOX_URL` and `LOCKBOX_TOKEN`; the token is never taken from a command line, where others can read it."""

    model_config = SettingsConfigDict(env_prefix="LOCKBOX_", frozen=True, extra="ignore", hide_input_in_errors=True)

    url: str = "http://127.0.0.1:8000"
    token: SecretStr


def load_client() -> ClientSettings:
    """Read the client's settings.

    Raises:
        UnsafeSettings: the token is not set.
    """
    try:
        return ClientSettings()
    except ValidationError:
        raise UnsafeSettings("set LOCKBOX_TOKEN to your token and LOCKBOX_URL to the API's address") from None
