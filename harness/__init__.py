"""The props that tests, benchmarks, chaos and the demo share; no part of the product may import them.

`stage` has servers, databases and processes, `people` the worlds that live on them, `mail_relay` and
`webhook_receiver` what mails and calls arrive at, `load` many clients over HTTP, `export` the audit log as an admin
takes it away. `sinks` is what both of them share. `network` is below
the sinks, and `ports` and `wait` are below all.
"""
