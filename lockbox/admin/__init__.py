"""Administration of tenants and of the vendor.

Functions that take a slug or an id raise NotFound if the caller may not know of the object, NotYours without the
role, and SignInAgain if the change needs a fresh sign-in (see `lockbox.errors`).
"""
