"""The props of tests, benchmarks, chaos and the demo; no part of the product may import them.

A module imports only lower ones: `ports` and `wait` are the lowest, `network` is below `sinks`, and both are below
`mail_relay` and `webhook_receiver`.
"""
