"""Write the gallery into a folder: `python -m devstack.mails [--all] [FOLDER]`; by default into var/mails."""

import argparse
from pathlib import Path

from devstack.mails.gallery import write

ARGUMENTS = argparse.ArgumentParser(
    prog="python -m devstack.mails", description="Write mails into a folder to look at."
)
ARGUMENTS.add_argument("--all", action="store_true", help="every mail, also of long, right-to-left and hostile input")
ARGUMENTS.add_argument("folder", nargs="?", type=Path, default=Path("var/mails"))

if __name__ == "__main__":
    chosen = ARGUMENTS.parse_args()
    count = write(chosen.folder, every=chosen.all)
    print(f"{count} mails, each as .html, .txt and .eml: open {chosen.folder / 'index.html'}")
