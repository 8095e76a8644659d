"""Many cases in one test: each is tried, and each that fails is named."""

import inspect
from collections.abc import Callable, Collection, Iterable
from functools import wraps
from typing import Any

Test = Callable[..., None]


def each(names: str | Collection[str], cases: Iterable[Any]) -> Callable[[Test], Test]:
    """Try a test with each of the cases, setting up fixtures only once; used like `parametrize`.

    Where pytest sets up and reports each case by itself, that costs some milliseconds, more than most cases of a
    table take. Use it only for cases that leave nothing behind.
    """
    several = None if isinstance(names, str) else tuple(names)
    tried = list(cases)

    def taking(test: Test) -> Test:
        @wraps(test)
        def all_of_them(**fixtures: Any) -> None:
            assert tried, "there is no case"
            failed = [off for case in tried if (off := _tried(test, fixtures, named(case)))]
            if failed:
                raise ExceptionGroup(f"{len(failed)} of {len(tried)} cases", failed)

        def named(case: Any) -> dict[str, Any]:
            return {str(names): case} if several is None else dict(zip(several, case, strict=True))

        signature = inspect.signature(test)
        left = [one for name, one in signature.parameters.items() if name not in (several or (names,))]
        all_of_them.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]
        return all_of_them

    return taking


def _tried(test: Test, fixtures: dict[str, Any], case: dict[str, Any]) -> Exception | None:
    try:
        test(**fixtures, **case)
    except Exception as off:  # noqa: BLE001 - whatever a case fails by, the others are tried
        off.add_note(f"case: {case}")
        return off
    return None
