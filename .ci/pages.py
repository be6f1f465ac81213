"""bin/docs: the pages in docs/, as HTML in docs/_build/html; a warning is an error.

``--epub`` makes a book of them instead, docs/zope.sendmail.epub, for reading without a network; the sdist has it if
it is there.  Other arguments go to Sphinx, for example ``-E`` to read every page anew.
"""

import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
DOCS = HERE / "docs"
BUILT = DOCS / "_build"
BOOK = DOCS / "zope.sendmail.epub"


def main() -> int:
    """Build; return Sphinx's exit status."""
    options = [each for each in sys.argv[1:] if each != "--epub"]
    is_book = "--epub" in sys.argv
    made = build("epub" if is_book else "html", *options)
    if not made and is_book:
        shutil.copy(BUILT / "epub" / BOOK.name, BOOK)
    if not made:
        print(f"The pages: {BOOK if is_book else BUILT / 'html' / 'index.html'}")
    return made


def are_right() -> bool:
    """Whether the pages can be built, as HTML and as a book."""
    return all(build(builder) == 0 for builder in ("html", "epub"))


def build(builder: str, *options: str) -> int:
    """Run Sphinx, quietly where the output is no terminal; what it has read serves all builders."""
    quiet = [] if sys.stdout.isatty() else ["-q"]
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-b", builder, "-d", str(BUILT / "doctrees")]
    return subprocess.run(
        [*command, *quiet, *options, str(DOCS), str(BUILT / builder)], cwd=HERE, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
