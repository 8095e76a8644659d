"""Check that a log has every definition of each gate: each change names the definition before it; pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lockbox.audit.verifier.export_format import FindingKind, Findings

DEFINED, REDEFINED = "gate_defined", "gate_redefined"
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass
class DefinitionChecker:
    """The first event of a gate may name a definition from before the tenant existed."""

    findings: Findings
    _told: dict[str, set[str]] = field(default_factory=dict)
    _later: list[tuple[str, str, Mapping[str, Any]]] = field(default_factory=list)

    def take(self, fields: Mapping[str, Any], where: Mapping[str, Any]) -> None:
        if fields["seq"] is not None or fields["action"] not in {DEFINED, REDEFINED}:
            return
        service, digest, before = fields.get("service"), fields.get("sha256"), fields.get("before")
        said = [digest] if before is None else [digest, before]
        if not isinstance(service, str) or not all(isinstance(one, str) and SHA256.fullmatch(one) for one in said):
            self.findings.add(FindingKind.MALFORMED, "the event does not say which gate it is of, and what", **where)
            return
        if service in self._told and before is not None:
            self._later.append((service, str(before), where))
        self._told.setdefault(service, set()).add(str(digest))

    def finish(self, *, is_all_there: bool) -> None:
        for service, before, where in self._later if is_all_there else ():
            if before not in self._told[service]:
                message = f"the gate of {service} was changed from a definition that the log does not tell of"
                self.findings.add(FindingKind.GATE, message, **where)
