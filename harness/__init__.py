"""The props that tests, benchmarks, chaos and the demo share; no part of the product may import them.

`stage` has servers, databases and processes, `people` the worlds that live on them, `sinks` what mails and webhook
calls arrive at, `load` many clients over HTTP, `export` the audit log as an admin takes it away. `network` is below
the sinks, and `ports` and `wait` are below all.
"""
