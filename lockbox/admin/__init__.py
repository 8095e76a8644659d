"""Administration of tenants and of the vendor.

Functions that take a slug or an id raise NotFound where the caller may not know of it, NotYours where they lack the
role, and SignInAgain where the change needs a fresh sign-in. The classes of `lockbox.errors` say when each is raised.
"""
