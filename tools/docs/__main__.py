"""Write every page and picture that is made by code."""

from pathlib import Path

from tools.docs import config_page, views_picture

DOCS = Path(__file__).resolve().parents[2] / "docs"


def main() -> None:
    (DOCS / "config.md").write_text(config_page.page(), encoding="utf-8")
    views_picture.picture().save(DOCS / "img" / "views.png", optimize=True)


if __name__ == "__main__":
    main()
