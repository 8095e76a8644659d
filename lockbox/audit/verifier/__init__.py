"""Offline verification of an export, with no help from the server.

Checkers take events in the order of the log, and a request's moves in the order of their `seq`. `shown` are an
event's personal values, each verified against its commitment. `where` is the event's place in the file.
`is_all_there` is whether the file must have every event that a check needs.
"""
