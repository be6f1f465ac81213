#!/usr/bin/env python3
"""Set zope.sendmail up in this directory, then run something in it.

    python3 bootstrap.py                  set everything up, run nothing
    python3 bootstrap.py demo [args]      set up what the demo needs, then run it
    python3 bootstrap.py test [args]      ... the tests; the arguments go to zope.testrunner
    python3 bootstrap.py check [args]     ... ruff, mypy, import-linter, pins, or those named
    python3 bootstrap.py buildout [args]  run buildout itself, for example with `-c zope.cfg`

Nothing outside this directory is changed.  The first start makes .venv/, installs into it, in one go, the
versions that versions.cfg names, and has buildout write the scripts to bin/.  Later starts find that done and
need no network.  What pip and buildout said is in parts/bootstrap.log.

Only the standard library is used here, and nothing that an older Python could not read: it is to be told so.
"""

import configparser
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(HERE, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
PARTS = os.path.join(HERE, "parts")
LOG = os.path.join(PARTS, "bootstrap.log")
CONSTRAINTS = os.path.join(PARTS, "constraints.txt")

OLDEST = (3, 11)

# command -> (the extra of zope.sendmail it needs, the parts of buildout.cfg that make its scripts)
COMMANDS = {
    "demo": ("demo", ["app"]),
    "test": ("test", ["test", "pytest"]),
    "check": ("check", ["check"]),
}
EVERYTHING = ("check", ["app", "test", "pytest", "check"])  # the check extra includes the others

# One script of each part: it is missing where somebody tidied up, or ran buildout with other parts.
SCRIPTS = {"app": "demo", "test": "test", "pytest": "pytest", "check": "check"}

# A change to one of these makes the next start look again at what is installed.
INPUTS = ["bootstrap.py", "buildout.cfg", "versions.cfg", "setup.py", "pyproject.toml"]

# What must be in .venv before zope.sendmail and buildout's recipes can be installed.
TOOLS = ["packaging", "pip", "platformdirs", "setuptools", "wheel"]
TOOLS += ["zc.buildout", "zc.recipe.egg", "zc.recipe.testrunner"]

# `python -m zc.buildout.buildout` does nothing, and bin/buildout cannot start where the path has a space.
BUILDOUT = [PYTHON, "-c", "import sys; from zc.buildout.buildout import main; sys.exit(main())"]

# What must not reach the Python and the pip in .venv from outside.
MISLEADING = {
    "PYTHONDONTWRITEBYTECODE",  # the tests start hundreds of programs: each would compile all of the package anew
    "PYTHONHOME",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "__PYVENV_LAUNCHER__",
    "PIP_CONSTRAINT",
    "PIP_NO_DEPS",
    "PIP_PREFIX",
    "PIP_PYTHON",
    "PIP_REQUIREMENT",
    "PIP_ROOT",
    "PIP_TARGET",
}

LOG_TAIL = 25  # lines of the log shown when a step fails


class Failure(Exception):
    """The set-up cannot go on; the text says why and what helps."""


def main(args):
    command, rest = (args[0], args[1:]) if args else ("", [])
    if command in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    if command not in ("", "buildout") and command not in COMMANDS:
        print(__doc__, file=sys.stderr)
        print("There is no command %r." % command, file=sys.stderr)
        return 2
    try:
        do(command, rest)
    except (Failure, OSError) as failure:
        print("\n%s" % failure, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The next start goes on from here.", file=sys.stderr)
        return 130
    return 0


def do(command, args):
    """Set up what `command` needs and become it; without a command, set everything up and come back."""
    check_python()
    if command == "buildout":
        set_up_tools()
        start([*BUILDOUT, *args])
    extra, parts = COMMANDS.get(command, EVERYTHING)
    set_up(extra, parts)
    if command:
        start([PYTHON, script(command), *args])
    print("Ready: python3 bootstrap.py demo, or test, or check.")


def check_python():
    """Refuse, with the cure, a Python that cannot do it."""
    if sys.version_info < OLDEST:
        raise Failure(
            "zope.sendmail needs Python %d.%d or newer; this is %s (%s).\n"
            "Start bootstrap.py with a newer one, for example: python3.%d bootstrap.py demo"
            % (*OLDEST, sys.version.split()[0], sys.executable, OLDEST[1])
        )
    if os.name != "posix":
        raise Failure("zope.sendmail runs on POSIX systems (Linux, macOS, the BSDs); this is %s." % os.name)
    try:
        import ensurepip  # noqa: F401 - Debian and Ubuntu leave it to a package of its own
        import venv  # noqa: F401 - only whether it is there
    except ImportError:
        raise Failure(
            "This Python cannot make virtual environments.\nOn Debian or Ubuntu:  apt install python3-venv"
        ) from None


def start(argv):
    """Become the program `argv`.  Through .venv's Python, for a #! line must not have spaces in its path."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(argv[0], argv, environment())


def script(name):
    return os.path.join(HERE, "bin", name)


# What is there already


def set_up(extra, parts):
    """Make the scripts of `parts` ready to run, unless they are."""
    if ready(parts):
        return
    with alone():
        if ready(parts):  # another start did it while this one waited
            return
        now = fingerprint()  # before the first step, so that a change during the set-up is seen next time
        with Progress("Setting up zope.sendmail") as progress:
            make_venv(progress)
            install_distributions(extra, progress)
            run_buildout(parts, progress)
        for part in parts:
            with open(stamp(part), "w", encoding="utf-8") as file:
                file.write(now)


def set_up_tools():
    """Make buildout itself ready to run, unless it is."""
    if not venv_works():
        with alone(), Progress("Setting up buildout") as progress:
            make_venv(progress)


def ready(parts):
    """Whether every part was made from just what is here now."""
    now = fingerprint()
    scripts = [script(SCRIPTS[part]) for part in parts]
    return all(content(stamp(part)) == now for part in parts) and all(map(os.path.exists, [PYTHON, *scripts]))


def stamp(part):
    """The file that says what `part` was made from.  In .venv, so that it goes when .venv goes."""
    return os.path.join(VENV, "made-%s" % part)


def fingerprint():
    """One word for everything the set-up depends on."""
    digest = hashlib.sha256(venv_identity().encode())
    for name in INPUTS:
        digest.update(b"\0%s\0" % name.encode())
        with open(os.path.join(HERE, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def venv_identity():
    """What .venv cannot survive a change of: Python's version, and the place, which stands in its scripts."""
    return "Python %d.%d in %s\n" % (*sys.version_info[:2], HERE)


def content(path):
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ""


@contextlib.contextmanager
def alone():
    """Let no second start set up in this directory meanwhile.

    The kernel frees the lock when its last holder dies.  pip and buildout hold it too: they may outlive this
    program when it is killed, and nobody is to start before they have ended.
    """
    import fcntl  # not at the top: check_python() is to speak first where there is none

    os.makedirs(PARTS, exist_ok=True)
    with open(os.path.join(PARTS, "bootstrap.lock"), "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another start of bootstrap.py to finish its set-up.", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        os.set_inheritable(lock.fileno(), True)
        with open(LOG, "w", encoding="utf-8"):
            pass  # of this set-up only
        yield


# The steps


def make_venv(progress):
    """.venv with pip, setuptools and buildout in it; a half-made, moved or broken one is made anew."""
    if venv_works():
        return
    progress.show("making .venv")
    shutil.rmtree(VENV, ignore_errors=True)
    run([sys.executable, "-m", "venv", VENV], progress)
    pip_install(TOOLS, progress)
    with open(os.path.join(VENV, "made-venv"), "w", encoding="utf-8") as file:
        file.write(venv_identity())


def venv_works():
    """Whether .venv was finished, here, with this Python, and still starts."""
    if content(os.path.join(VENV, "made-venv")) != venv_identity() or not os.path.exists(PYTHON):
        return False
    # setuptools first: it refuses to come after pip, which has loaded a distutils by then.
    trial = [PYTHON, "-c", "import setuptools, zc.buildout.buildout, zc.recipe.egg, pip._internal.cli.main"]
    return subprocess.run(trial, check=False, env=environment(), capture_output=True).returncode == 0


def install_distributions(extra, progress):
    """Everything that `extra` needs, in one go.

    buildout looks for distributions in .venv too, and finds them all.  Left to itself it would start one pip
    for each, which takes twice as long or more.
    """
    pip_install([*TOOLS, "--editable", "%s[%s]" % (HERE, extra)], progress)


def pip_install(what, progress):
    """The pinned versions of `what`; those of the tools must be named, the rest pip finds as requirements."""
    progress.show("looking for distributions")
    pins = read_pins()
    with open(CONSTRAINTS, "w", encoding="utf-8") as file:
        file.writelines("%s==%s\n" % pin for pin in pins.items())
    run([PYTHON, "-m", "pip", "install", "--progress-bar=off", "--constraint", CONSTRAINTS, *what], progress)


def read_pins():
    """The [versions] of versions.cfg: name -> version."""
    config = configparser.RawConfigParser(delimiters=["="])
    config.optionxform = str
    with open(os.path.join(HERE, "versions.cfg"), encoding="utf-8") as file:
        config.read_file(file)
    return dict(config["versions"])


def run_buildout(parts, progress):
    """The scripts in bin/.  Only `parts`; those of earlier commands stay."""
    progress.show("writing bin/")
    run([*BUILDOUT, "-c", os.path.join(HERE, "buildout.cfg"), "install", *parts], progress)


def run(argv, progress):
    """Run one step in this directory: what it says goes to the log, a word of it to the progress line."""
    with open(LOG, "a", encoding="utf-8") as log:
        log.write("\n%s $ %s\n" % (time.strftime("%Y-%m-%d %H:%M:%S"), " ".join(argv)))
        log.flush()
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        text = {"text": True, "errors": "replace"}
        process = subprocess.Popen(argv, cwd=HERE, env=environment(), close_fds=False, **streams, **text)
        try:
            for line in process.stdout:
                log.write(line)
                progress.follow(line)
        finally:
            process.stdout.close()
            status = process.wait()
        log.write("exit status %d\n" % status)
    if status:
        raise Failure(
            "The set-up failed. The end of its log:\n\n%s\n\nAll of it is in %s\n"
            "(The first set-up needs the network; pip says odd things when it reaches no package index.)"
            % (log_tail(), os.path.relpath(LOG))
        )


def log_tail():
    with open(LOG, encoding="utf-8", errors="replace") as log:
        return "".join("    " + line for line in log.readlines()[-LOG_TAIL:]).rstrip()


def environment():
    """The environment for what is started here: as it is, less what would lead a Python or pip elsewhere."""
    env = {name: value for name, value in os.environ.items() if name not in MISLEADING}
    # pip reads this one upside down: 0 means no isolation.  The pinned build tools in .venv serve, instead of
    # others that each run of buildout would download.
    env["PIP_NO_BUILD_ISOLATION"] = "0"
    env["PIP_USER"] = "0"
    env["PIP_NO_INPUT"] = "1"
    env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    env["PIP_ROOT_USER_ACTION"] = "ignore"
    return env


class Progress:
    """One line on standard error, written over and over; on no terminal, a first and a last one."""

    def __init__(self, title):
        self.title = title
        self.started = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.distributions = 0

    def __enter__(self):
        if not self.terminal:
            self.write("%s: once, mostly under a minute. Log: %s\n" % (self.title, os.path.relpath(LOG)))
        return self

    def __exit__(self, kind, error, traceback):
        if self.terminal:
            self.write("\r\033[K")
        if error is None:
            self.write("Set up in %d seconds.\n" % (time.monotonic() - self.started))

    def show(self, text):
        if self.terminal:
            line = "%s  %2d s  %s" % (self.title, time.monotonic() - self.started, text)
            self.write("\r\033[K" + line[: shutil.get_terminal_size().columns - 1])

    def follow(self, line):
        """Show what a line of pip's output tells of its way."""
        words = line.split()
        if words[:1] == ["Collecting"]:
            self.distributions += 1
            self.show("%d %s" % (self.distributions, words[1].split("=")[0]))
        elif words[:2] == ["Installing", "collected"]:
            self.show("installing")

    @staticmethod
    def write(text):
        sys.stderr.write(text)
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
