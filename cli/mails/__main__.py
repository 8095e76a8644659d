"""Writes the gallery into a folder: `python -m cli.mails [FOLDER]`, var/mails where none is named."""

import sys
from pathlib import Path

from cli.mails.gallery import write

FOLDER = Path("var/mails")

if __name__ == "__main__":
    chosen = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    count = write(chosen)
    print(f"{count} mails, each as .html, .txt and .eml: open {chosen / 'index.html'}")
