"""What leans on private parts of psycopg, which a new version may change: nothing else of the house imports any.

A refusal is a ROLLBACK, and psycopg forgets every prepared statement then; planning takes longer than running here.
psycopg has no setting for it (decision 34). A test names the version for which its private parts were read.
"""
