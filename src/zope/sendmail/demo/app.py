"""``demo``: tells what this package promises, and shows that it is so.

Exit status 0 only if what was delivered agrees with what was committed.  Nothing is left behind: no process,
and no file unless ``--keep`` asks for them.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NoReturn

from zope.sendmail.demo.ledger import Surprise

PROMISE = "Mail that leaves if, and only if, the transaction commits"

_LOG = "demo.log"
_LOG_TAIL = 15


def main() -> int:
    """Run the console script."""
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, _end)
    try:
        return run(options)
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains at the very end
        return 1
    except ModuleNotFoundError as error:
        return fail(f"The demo needs {error.name}, which is not installed: pip install 'zope.sendmail[demo]'")
    except (OSError, Surprise) as error:
        return fail(f"The demo cannot go on: {error}")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="demo", description=f"{PROMISE}: shows that it is so, in seconds.")
    add = parser.add_argument
    add("--serve", action="store_true", help="then keep running, with a page to send mail and see it arrive")
    add("--port", type=int, default=8025, metavar="N", help="of the page; 0: any that is free (default: 8025)")
    add("--keep", metavar="DIR", help="a new or empty directory for database, queue and logs, to look at them")
    options = parser.parse_args(arguments)
    if not 0 <= options.port < 65536:
        parser.error(f"--port {options.port}: a port is a number from 0 to 65535")
    return options


def run(options: argparse.Namespace) -> int:
    """Return the story, and the page if that is wanted."""
    began = time.monotonic()
    from zope.sendmail.demo import inboxpage, stage, story
    from zope.sendmail.demo.narrator import Narrator

    narrator = Narrator(sys.stdout)
    with contextlib.ExitStack() as at_end:
        directory = at_end.enter_context(place(options.keep))
        server = at_end.enter_context(inboxpage.bind(options.port)) if options.serve else None
        log_to(os.path.join(directory, _LOG))
        narrator.title(f"{PROMISE}.")
        scene = at_end.enter_context(stage.open_stage(directory))
        narrator.say("site.zcml is loaded, the database is open, and a thread drains the queue.")
        well = story.tell(scene, narrator)
        narrator.aside(f"{time.monotonic() - began:.1f} seconds in all.{kept(options.keep)}")
        if not well:
            show_logs(directory)
        if server is not None:
            inboxpage.serve(server, scene, narrator)
    return 0 if well else 1


@contextlib.contextmanager
def place(keep: str | None) -> Iterator[str]:
    """Yield a directory for everything: `keep`, or else a temporary one.  Raises `OSError` if `keep` is in use."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="zope-sendmail-demo-") as directory:
            yield directory
        return
    directory = os.path.abspath(keep)
    os.makedirs(directory, exist_ok=True)
    if os.listdir(directory):
        raise OSError(f"{keep} is not empty; --keep wants a new or empty directory")
    yield directory


def kept(keep: str | None) -> str:
    """Return where to look afterwards."""
    return f" Database, queue and logs are in {keep}." if keep else ""


def log_to(path: str) -> None:
    """Send what the package logs to a file, where it does not disturb the story."""
    line = "%(asctime)s %(levelname)s %(name)s %(message)s"
    logging.basicConfig(filename=path, level=logging.INFO, format=line)
    logging.getLogger("mail.log").setLevel(logging.WARNING)  # aiosmtpd's, every line of every conversation


def show_logs(directory: str) -> None:
    """Print the ends of the logs, so that a person can find out why the story went wrong."""
    for name in sorted(each for each in os.listdir(directory) if each.endswith(".log")):
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as log:
            tail = log.readlines()[-_LOG_TAIL:]
        sys.stderr.write(f"\nThe end of {name}:\n{''.join(tail)}")


def fail(text: str) -> int:
    """Say why there is no story."""
    print(text, file=sys.stderr)
    return 1


def _end(_number: int, _frame: object) -> NoReturn:
    """SIGTERM: end like Ctrl-C, so that nothing is left behind."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
