"""A gallery of every mail that the lockbox writes, to look at in a browser or a mail program: `make mails`."""
