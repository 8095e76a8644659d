"""`python -m cli` is the command `lockbox`."""

from cli.app import main

main()
