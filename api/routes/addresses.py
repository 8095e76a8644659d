"""Routes for the caller's further addresses."""

from uuid import UUID

from fastapi import Depends, Response

from api.call_routes import CallRouter
from api.deps import ClientInfoDep, CurrentUser, SessionDep
from api.rate_limits import count_address
from api.schemas.addresses import AddressChange, AddressList, AddressView, ConfirmationCode, NewAddress
from api.schemas.parts import problems
from lockbox.identity.models import Address
from lockbox.notifications import addresses

router = CallRouter(prefix="/v1/me/addresses", tags=["account"])


@router.get("", responses=problems())
def list_my_addresses(who: CurrentUser, session: SessionDep, response: Response) -> AddressList:
    """List the caller's further addresses, without the sign-in address."""
    response.headers["cache-control"] = "no-store"
    return AddressList(items=[_view(one) for one in addresses.mine(session, who)])


@router.post("", status_code=201, responses=problems(400, 409, 429), dependencies=[Depends(count_address)])
def add_my_address(body: NewAddress, who: CurrentUser, origin: ClientInfoDep, session: SessionDep) -> AddressView:
    """Add an address; requires a fresh sign-in.

    Mails go there only after the address is confirmed with the mailed code.
    """
    return _view(addresses.add(session, who, origin, body.email, prompts=body.prompts))


@router.post("/{address_id}/confirm", responses=problems(400, 404, 409))
def confirm_my_address(
    address_id: UUID, body: ConfirmationCode, who: CurrentUser, origin: ClientInfoDep, session: SessionDep
) -> AddressView:
    """Confirm an address with the mailed code; mails go there from then on."""
    return _view(addresses.confirm(session, who, origin, address_id, body.code))


@router.patch("/{address_id}", responses=problems(400, 404))
def change_my_address(
    address_id: UUID, body: AddressChange, who: CurrentUser, origin: ClientInfoDep, session: SessionDep
) -> AddressView:
    """Set whether prompts, reminders and outcomes go to an address; receipts always do."""
    return _view(addresses.choose(session, who, origin, address_id, prompts=body.prompts))


@router.delete("/{address_id}", status_code=204, responses=problems(404))
def remove_my_address(address_id: UUID, who: CurrentUser, origin: ClientInfoDep, session: SessionDep) -> None:
    """Remove an address; nothing more is sent there, not even what is queued."""
    addresses.remove(session, who, origin, address_id)


def _view(address: Address) -> AddressView:
    return AddressView.model_validate(address, from_attributes=True)
