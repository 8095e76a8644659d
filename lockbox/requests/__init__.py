"""The life of a request: its states and moves, its policy, and the only code that writes requests.

Functions with a `caller` raise NotFound for a request that the caller may not know of, and NotYours for an action
that the caller may not take. A malformed `cursor` raises Invalid. `ahead` are the calling code's next queries, which
are sent in the same round trip.
"""
