"""bin/docs: the pages in docs/, as HTML in docs/_build/html; a warning is an error.

Arguments go to Sphinx, for example ``-E`` to read every page anew.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
DOCS = HERE / "docs"


def main() -> int:
    """Build; return Sphinx's exit status."""
    made = build(*sys.argv[1:])
    if not made:
        print(f"The pages: {DOCS / '_build' / 'html' / 'index.html'}")
    return made


def build(*options: str) -> int:
    """Run Sphinx, quietly where the output is no terminal."""
    quiet = [] if sys.stdout.isatty() else ["-q"]
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-b", "html", *quiet, *options]
    return subprocess.run([*command, str(DOCS), str(DOCS / "_build" / "html")], cwd=HERE, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
