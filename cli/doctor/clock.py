"""Compare the clock of this machine with a server's clock."""

import time
from collections.abc import Callable

from cli.doctor.findings import DoctorFinding, failure, warning, well

WARNED_SECONDS, MOST_SECONDS = 1.0, 5.0
FIX = "synchronise both machines by NTP: `timedatectl` shows whether this one is (chrony or systemd-timesyncd)"


def compare(check: str, server: str, read: Callable[[], float]) -> DoctorFinding:
    """`read` returns seconds since 1970; the duration of the call is not counted."""
    before = time.time()
    theirs = read()
    after = time.time()
    ahead = (before + after) / 2 - theirs
    skew = max(abs(ahead) - (after - before) / 2, 0.0)
    says = f"this machine's clock is {skew:.1f} s {'ahead of' if ahead > 0 else 'behind'} that of {server}"
    if skew > MOST_SECONDS:
        return failure(check, says, FIX)
    if skew > WARNED_SECONDS:
        return warning(check, says, FIX)
    return well(check, f"agrees with that of {server}")
