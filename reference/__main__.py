"""Write the pages of docs/reference: `python -m reference`."""

from reference.pages import FOLDER, PAGES


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
