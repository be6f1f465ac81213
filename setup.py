"""What this distribution is called, what it needs, what belongs into it.

The tools' settings are in pyproject.toml, the exact versions of everything in versions.cfg.
"""

import os
import re

from setuptools import find_namespace_packages, setup

HERE = os.path.dirname(os.path.abspath(__file__))


def read(name):
    """The text of a file beside this one; nothing if it is not there."""
    try:
        with open(os.path.join(HERE, name), encoding="utf-8") as text:
            return text.read()
    except FileNotFoundError:
        return ""


def without_pictures(text):
    """The text without its images, which lie beside it: an index that shows the text has none of them."""
    return re.sub(r"(?m)^\.\. image:: .*\n(?: .*\n)*\n", "", text)


# ZCML that protects objects or names permissions: without it the package works in any Python program.
SECURITY = [
    "zope.component[zcml]",
    "zope.security[zcml]",
]

APPSETUP = [
    "zope.app.appsetup",
]

# The console in the browser.
CONSOLE = [
    "Chameleon",
    "Werkzeug",
    "waitress",
]

# What the demo's site.zcml includes, the relay it delivers to, and what its page shows.
DEMO = [
    *APPSETUP,
    *SECURITY,
    *CONSOLE,
    "ZODB",
    "aiosmtpd",
    "zope.container",
    "zope.location",
    "zope.site",
    "zope.traversing",
]

# ``zope.sendmail.contrib.pyramid``.
PYRAMID = [
    "pyramid",
    "pyramid_tm",
]

# ``zope.sendmail.contrib.django``, ``.flask``, ``.sqlalchemy``.
DJANGO = [
    "Django >= 5.2",
]
FLASK = [
    "Flask",
]
SQLALCHEMY = [
    "SQLAlchemy >= 2",
]

# A queue in PostgreSQL, for several machines.
POSTGRESQL = [
    "psycopg >= 3.2",
]

# The Maildrop Host and the mail queues of mail hosts in Zope's management interface.
ZOPE = [
    *CONSOLE,
    "Products.MailHost",
    "Zope",
]

# Signatures of mail.
DKIM = [
    "dkimpy >= 1.1.8",
    "PyNaCl",  # for Ed25519
]

# Bounces in the forms of many MTAs, and by LMTP.
BOUNCES = [
    "aiosmtpd",
    "flufl.bounce",
]

# Metrics of processors and queues.
METRICS = [
    "prometheus-client",
]

# Traces of mail.
OTEL = [
    "opentelemetry-api",
]

TEST = [
    *DEMO,
    *BOUNCES,
    *DKIM,
    *METRICS,
    *OTEL,
    *POSTGRESQL,
    "hypothesis",
    "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-sdk",
    "psycopg[binary]",  # with libpq in it; only the tests need a server, and skip where there is none
    "pytest",
    "trustme",
    "z3c.unconfigure",
    "zope.app.wsgi",
    "zope.testing",
    "zope.testrunner",
]

DOCS = [
    "Sphinx",
    "furo",
    "repoze.sphinx.autointerface",
]

# The checkers read the tests as well, so they have to find what the tests import; the pages are one of the checks.
CHECK = [
    *TEST,
    *DOCS,
    "coverage",
    "import-linter",
    "mypy",
    "mypy-zope",
    "ruff",
]

setup(
    name="zope.sendmail",
    version="8.0.0",
    description="Mail that leaves if, and only if, the transaction commits",
    long_description="\n\n".join(filter(None, (without_pictures(read("README.txt")), read("CHANGES.txt")))),
    long_description_content_type="text/x-rst",
    author="Zope Foundation and Contributors",
    url="https://github.com/zopefoundation/zope.sendmail",
    project_urls={
        "Documentation": "https://github.com/zopefoundation/zope.sendmail/tree/master/docs",
        "Changes": "https://github.com/zopefoundation/zope.sendmail/blob/master/CHANGES.txt",
        "Issues": "https://github.com/zopefoundation/zope.sendmail/issues",
    },
    license_expression="ZPL-2.1",
    license_files=["LICENSE.txt"],
    keywords="zope zodb transaction mail smtp queue maildir",
    classifiers=[
        "Framework :: Django",
        "Framework :: FastAPI",
        "Framework :: Flask",
        "Framework :: Plone",
        "Framework :: Pyramid",
        "Framework :: Pytest",
        "Framework :: Zope :: 3",
        "Framework :: Zope :: 5",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Programming Language :: Python :: Implementation :: CPython",
        "Topic :: Communications :: Email :: Mail Transport Agents",
        "Typing :: Typed",
    ],
    # Without `include=`: so the list names `zope` itself, and an editable installation becomes one plain path
    # entry that every tool understands, instead of an import hook that pkgutil, mypy and Zope do not see.
    packages=find_namespace_packages("src", exclude=["*.__pycache__", "*.__pycache__.*"]),
    package_dir={"": "src"},
    # Manual pages, completions and a service; .ci/manual.py makes the first two of the parsers.
    data_files=[
        (directory, sorted(f"{directory}/{name}" for name in os.listdir(os.path.join(HERE, directory))))
        for directory in (
            "share/man/man1",
            "share/bash-completion/completions",
            "share/fish/vendor_completions.d",
            "share/zsh/site-functions",
            "share/systemd/system",
        )
    ],
    package_data={
        "": [
            "*.css",
            "*.html",
            "*.js",
            "*.json",
            "*.pem",
            "*.pt",
            "*.rst",
            "*.svg",
            "*.sql",
            "*.txt",
            "*.zcml",
            "*.zpt",
            "py.typed",
        ]
    },
    include_package_data=False,
    zip_safe=False,
    python_requires=">=3.11",
    install_requires=[
        "idna",
        "transaction",
        "zope.component",
        "zope.configuration",
        "zope.event",
        "zope.i18nmessageid",
        "zope.interface",
        "zope.processlifetime",
        "zope.schema",
    ],
    extras_require={
        "security": SECURITY,
        "appsetup": APPSETUP,
        "demo": DEMO,
        "pyramid": PYRAMID,
        "django": DJANGO,
        "flask": FLASK,
        "sqlalchemy": SQLALCHEMY,
        "console": CONSOLE,
        "bounces": BOUNCES,
        "dkim": DKIM,
        "metrics": METRICS,
        "otel": OTEL,
        "postgresql": POSTGRESQL,
        "zope": ZOPE,
        "test": TEST,
        "check": CHECK,
        "docs": DOCS,
    },
    entry_points={
        "console_scripts": [
            "maildrop = zope.sendmail.maildrop.script:main",
            "zope-sendmail = zope.sendmail.cli.app:main",
            "zope-sendmail-demo = zope.sendmail.demo.app:main",
        ],
        # Fixtures for the tests of other projects; imports nothing before a test asks for one.
        "pytest11": ["zope.sendmail = zope.sendmail.testing.fixtures"],
    },
)
