"""Labels of facts and of mail lines."""


def label_text(label: str) -> str:
    return label
