"""Labels of facts and of mail lines; all of them pass through here."""


def label_text(label: str) -> str:
    return label
