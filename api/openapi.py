"""Write the committed OpenAPI document: `python -m api.openapi`."""

import json

from api import document
from api.app import make_app, make_database
from config.settings import Settings


def described() -> str:
    nowhere = Settings(
        environment="test", database_url="postgresql://nobody@localhost/x", redis_url="redis://localhost"
    )
    database = make_database(nowhere)
    app = make_app(nowhere, database)
    database.dispose()
    return json.dumps(document.made(app), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def main() -> None:
    document.FILE.write_text(described(), encoding="utf-8")


if __name__ == "__main__":
    main()
