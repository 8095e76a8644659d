"""The props of tests, benchmarks, chaos and the demo; no part of the product may import them.

`ports` and `wait` are below all, `network` below `sinks`, and those below `mail_relay` and `webhook_receiver`.
"""
