"""Administration of tenants and of the vendor.

Functions that take a slug or an id raise NotFound if the caller may not know of the object, NotYours if the caller
lacks the role, SignInAgain if the change needs a fresh sign-in, Invalid for invalid input, and Conflict if the
present state does not allow the change (see `lockbox.errors`). `seen` is the version that the caller wants to
replace, None for any. Functions that take a `Database` may be repeated, and may run in several processes.
"""
