"""Routes of the device login."""

from fastapi import Request, Response

from api import deps
from api.call_routes import CallRouter
from api.deps import ClientInfoDep, DatabaseDep, SessionDep, SettingsDep
from api.schemas.device_login import DeviceAuthorizationView, DeviceLoginStateView, DeviceToken
from api.schemas.parts import problems
from lockbox.identity import attempt_limits, device_login
from lockbox.identity.attempt_limits import AttemptLimits

router = CallRouter(prefix="/v1/device-logins", tags=["tokens"])

PAGE = "/device"
EVERY_SECONDS = 2


@router.post("", status_code=201, responses=problems(429))
def start_device_login(
    request: Request, origin: ClientInfoDep, chosen: SettingsDep, db: DatabaseDep, response: Response
) -> DeviceAuthorizationView:
    """Request a code that a person types into the page; needs no token, and is counted like a sign-in attempt."""
    with db.transaction() as session:
        limits = AttemptLimits(chosen.sign_ins_per_account, chosen.sign_ins_per_address)
        counted = attempt_limits.count(session, limits, address=deps.address(request))
    counted.check()
    with db.transaction() as session:
        asked = device_login.start(session, origin, environment=chosen.environment)
    response.headers["cache-control"] = "no-store"
    return DeviceAuthorizationView(
        user_code=asked.code,
        verification_uri=chosen.public_url.rstrip("/") + PAGE,
        expires_in=int(asked.lasts.total_seconds()),
        interval=EVERY_SECONDS,
        token=asked.token,
        token_expires_in=int(device_login.SIGNED_IN_FOR.total_seconds()),
    )


@router.post("/state", responses=problems())
def get_device_login_state(
    body: DeviceToken, session: SessionDep, chosen: SettingsDep, response: Response
) -> DeviceLoginStateView:
    """Return the state of a device login, identified by its own token."""
    response.headers["cache-control"] = "no-store"
    return DeviceLoginStateView(state=device_login.state(session, body.token, environment=chosen.environment))
