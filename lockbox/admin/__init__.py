"""Administration of tenants and of the vendor.

Functions that take a slug or an id raise NotFound if the caller may not know of the object, NotYours if the caller
lacks the role, and SignInAgain if the change needs a fresh sign-in. See the error classes in `lockbox.errors`.
"""
