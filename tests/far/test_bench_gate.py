"""What `make bench` measures about the gate: a real API admits calls by headers and tokens, and notices revokes."""

from bench.gate_checks import LoadedServer, revoked
from bench.gate_stack import gate_stack
from devstack.embedded import ServerAddresses
from harness.stage import fresh_database


def test_a_gate_process_answers_calls_with_known_and_new_tokens_and_notices_revokes(
    template: ServerAddresses,
) -> None:
    with fresh_database(template, flushes=False) as urls, gate_stack(template, urls, 2) as stack:
        gate = LoadedServer(stack.port, stack.cpu)
        named = [[stack.call(window)] for window in stack.windows]
        new = [[stack.call(window, stack.issuer.token())] for window in stack.windows]

        answered = [gate.in_turn(named, 0.5), gate.in_turn(new, 0.5), gate.paced(new, 0.5)]
        felt = revoked(stack)

    assert all(one > 0 for found in answered for one in found.values())
    assert 0 <= felt["gate_p99_ms"] < 5_000
    assert 0 <= felt["stream_p99_ms"] < 5_000
