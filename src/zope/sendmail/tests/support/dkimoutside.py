"""Verifiers of DKIM that others have written, without DNS: mailauth for Node.js, and Mail::DKIM for Perl.

``.ci/dkim.py`` fetches mailauth into the cache; Mail::DKIM is Debian's ``libmail-dkim-perl``, where that is installed.
Both get public keys as they would stand in DNS.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Keys = Mapping[str, RSAPublicKey | Ed25519PublicKey]

_MAILAUTH = """
const { dkimVerify } = require('mailauth/lib/dkim/verify');
const asked = JSON.parse(require('fs').readFileSync(0));
const resolver = async (name, type) => {
    if (type === 'TXT' && name in asked.keys) return [[asked.keys[name]]];
    throw Object.assign(new Error('no such name'), { code: 'ENOTFOUND' });
};
(async () => {
    const { results } = await dkimVerify(Buffer.from(asked.message, 'base64'), { resolver });
    const found = results.filter(each => each.signingDomain);
    console.log(JSON.stringify(found.map(each => [each.signingDomain, each.algo, each.status.result])));
})();
"""

_MAIL_DKIM = """
use strict; use warnings; use JSON::PP; use MIME::Base64; use Mail::DKIM::Verifier; use Mail::DKIM::PublicKey;
my $asked = decode_json(do { local $/; <STDIN> });
{ no warnings 'redefine';
  *Mail::DKIM::DNS::query_async = sub {
    my ($name, $type, %prms) = @_;
    my $text = $asked->{keys}{$name};
    my @found = defined $text ? (bless { text => $text }, 'Found') : ();
    my $result = $prms{Callbacks}{Success}->(@found);
    return sub { $result };
  };
}
{ package Found; sub type { 'TXT' } sub txtdata { ($_[0]{text}) } sub char_str_list { ($_[0]{text}) } }
my $verifier = Mail::DKIM::Verifier->new();
$verifier->PRINT(decode_base64($asked->{message}));
$verifier->CLOSE;
print encode_json([map { [$_->domain, $_->algorithm, $_->result] } $verifier->signatures]);
"""


class Verifier:
    """See the module.  `algorithms`: those that it knows."""

    title = "mailauth"
    algorithms = frozenset({"rsa-sha256", "ed25519-sha256"})

    @functools.cached_property
    def excuse(self) -> str:
        """Why it cannot be had here, or the empty string."""
        if shutil.which("node") is None:
            return "there is no Node.js for mailauth"
        if not (cache() / "node_modules" / "mailauth").is_dir():
            return "mailauth is not there: python3 .ci/dkim.py"
        return ""

    def command(self) -> list[str]:
        """What reads a message and keys, and says what it found."""
        return ["node", "-e", _MAILAUTH]

    def verified(self, message: bytes, keys: Keys) -> list[str]:
        """Return the domains and algorithms of the signatures that hold, in order; one that does not is left out."""
        asked = {
            "message": base64.b64encode(message).decode(),
            "keys": {name: text_of(key) for name, key in keys.items()},
        }
        done = subprocess.run(
            self.command(), input=json.dumps(asked), text=True, capture_output=True, check=False,
            env={**os.environ, "NODE_PATH": str(cache() / "node_modules")},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{self.title}: {done.stderr}")
        return [f"{domain} {algorithm}" for domain, algorithm, result in json.loads(done.stdout) if result == "pass"]


class PerlVerifier(Verifier):
    """Mail::DKIM; Debian's does not know Ed25519."""

    title = "Mail::DKIM"
    algorithms = frozenset({"rsa-sha256"})

    @functools.cached_property
    def excuse(self) -> str:
        """See `Verifier`."""
        try:
            subprocess.run(["perl", "-MMail::DKIM", "-MJSON::PP", "-e", "1"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            return "Mail::DKIM is not there: apt-get install libmail-dkim-perl"
        return ""

    def command(self) -> list[str]:
        """See `Verifier`."""
        return ["perl", "-e", _MAIL_DKIM]


def text_of(key: RSAPublicKey | Ed25519PublicKey) -> str:
    """Return a key as it stands in DNS (RFC 6376, 3.6.1; RFC 8463, 4)."""
    if isinstance(key, Ed25519PublicKey):
        return f"v=DKIM1; k=ed25519; p={base64.b64encode(key.public_bytes_raw()).decode()}"
    octets = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"v=DKIM1; k=rsa; p={base64.b64encode(octets).decode()}"


def cache() -> Path:
    """Where ``.ci/dkim.py`` puts it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zope.sendmail" / "dkim"
