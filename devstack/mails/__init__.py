"""A gallery of mails, for a browser or a mail program: `make mails`."""
