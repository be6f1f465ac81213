"""docs/floors.svg: the floors of the package, drawn from the import contract in pyproject.toml.

``python .ci/floors.py`` draws it; bin/check compares it with what would be drawn now.
"""

import sys
import tomllib
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
PICTURE = HERE / "docs" / "floors.svg"
PACKAGE = HERE / "src" / "zope" / "sendmail"

WIDTH, ROW, BOX, GAP, MARGIN = 860, 62, 42, 12, 16
#: What is not shipped as a part of the way of a mail.
LEFT_OUT = {"tests"}


def main() -> int:
    """Draw the picture; return 0."""
    PICTURE.write_text(drawn(), encoding="utf-8")
    return 0


def is_current() -> bool:
    """Say whether the picture shows the floors of today."""
    if PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == drawn():
        return True
    print("docs/floors.svg does not show the floors of pyproject.toml: run python .ci/floors.py", file=sys.stderr)
    return False


def floors() -> list[list[str]]:
    """Return the rooms of each floor, top floor first."""
    tools = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    contracts = tools["importlinter"]["contracts"]
    [layers] = [each["layers"] for each in contracts if each.get("containers") == ["zope.sendmail"]]
    rows = [[room.strip(" ()") for room in layer.split("|")] for layer in layers]
    return [[room for room in row if room not in LEFT_OUT] for row in rows if set(row) - LEFT_OUT]


def purpose(room: str) -> str:
    """Return the first line of a room's docstring, without markup."""
    path = PACKAGE / room / "__init__.py" if (PACKAGE / room).is_dir() else PACKAGE / f"{room}.py"
    if not path.exists():
        return ""
    line = path.read_text(encoding="utf-8").lstrip().removeprefix('"""').splitlines()[0]
    return line.removesuffix('"""').replace("``", "").replace("`", "")


def drawn() -> str:
    """Return the picture."""
    rows = floors()
    height = len(rows) * ROW + 2 * MARGIN - (ROW - BOX)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' role="img" font-family="system-ui, sans-serif">',
        "<title>The floors of zope.sendmail: each imports from the floors below it only</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fbfaf7"/>',
    ]
    for number, rooms in enumerate(rows):
        parts += drawn_row(rooms, MARGIN + number * ROW)
    return "\n".join([*parts, "</svg>", ""])


def drawn_row(rooms: list[str], top: int) -> list[str]:
    """Return the boxes of one floor, and the arrow to the floor below."""
    width = (WIDTH - 2 * MARGIN - GAP * (len(rooms) - 1)) / len(rooms)
    parts = []
    for number, room in enumerate(rooms):
        left = MARGIN + number * (width + GAP)
        name = f"{room}/" if (PACKAGE / room).is_dir() else room
        parts += [
            f"<g><title>{escape(purpose(room))}</title>",
            f'<rect x="{left:.0f}" y="{top}" width="{width:.0f}" height="{BOX}" rx="6" fill="#e8eef4"'
            ' stroke="#5b7086"/>',
            f'<text x="{left + width / 2:.0f}" y="{top + BOX / 2 + 5:.0f}" text-anchor="middle" font-size="15"'
            f' fill="#1c2733">{escape(name)}</text></g>',
        ]
    return parts


if __name__ == "__main__":
    sys.exit(main())
