"""Sentences of pages that do not stand in their templates: why a form is refused."""

NOT_ACCEPTED = "Not accepted: {why}."
NOTHING_CHOSEN = "Choose at least one request."
TOO_MANY_CHOSEN = "Choose at most {most} requests at a time."
NOT_FROM_THE_LIST = "Choose requests from the list."
NO_REASON = "Give a reason: it is recorded with each request."
