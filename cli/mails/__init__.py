"""A gallery of every mail, to look at in a browser or a mail program: `make mails`."""
