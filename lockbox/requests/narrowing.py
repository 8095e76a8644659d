"""Narrowing what was asked: what an approver keeps of it, and what is left of it once all have said yes."""

from collections.abc import Collection, Iterable, Sequence

from lockbox.errors import Invalid, NothingLeft

SHOWN = 100


def kept(asked: Sequence[str], wanted: Collection[str] | None, field: str) -> list[str] | None:
    """Return what an approver keeps of what was asked, in its order; None where that is all of it.

    Args:
        asked: what was asked, such as the resources.
        wanted: what the approver keeps; None keeps all.
        field: what it is called, such as `resources`.

    Raises:
        Invalid: nothing is kept, or something that was never asked.
    """
    if wanted is None:
        return None
    if beyond := sorted(set(wanted) - set(asked)):
        raise Invalid(f"You may leave out {field}, not add any: {beyond[0][:SHOWN]} was not asked.", field=field)
    if not wanted:
        raise Invalid(f"Keep at least one of the {field}, or deny the request.", field=field)
    found = [one for one in asked if one in wanted]
    return None if len(found) == len(asked) else found


def granted(asked: Sequence[str], votes: Iterable[Collection[str] | None], field: str) -> list[str] | None:
    """Return what all of these approvals keep of what was asked, in its order; None where that is all of it.

    Raises:
        NothingLeft: they have nothing in common.
    """
    found = list(asked)
    for one in votes:
        found = found if one is None else [name for name in found if name in one]
    if not found:
        raise NothingLeft(
            f"The approvals so far and yours have none of the {field} in common, so nothing would be opened: "
            "keep one that the others kept, or deny the request.",
            field=field,
        )
    return None if len(found) == len(asked) else found
