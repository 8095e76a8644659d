"""The verifier: checks an export offline, without anything of the server."""
