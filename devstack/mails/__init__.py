"""A gallery of mails, to look at in a browser or a mail program: `make mails`."""
