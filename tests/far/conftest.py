"""Far tests start processes as the tests of the whole do; `make test` leaves them out."""
