"""Labels of facts and of mail lines; all of them pass through here."""


def label_text(label: str) -> str:
    """The label in its reader's language; so far always English, as in the code."""
    return label
