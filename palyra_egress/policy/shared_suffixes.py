"""Suffixes below which anybody can get a name in minutes: hosting, tunnels, buckets, functions.

A wildcard over one of these opens a stranger's server. The table is a dated selection of the
private section of the Public Suffix List and of the providers' own documents, as of 2026-11-23; it
is for the linter, and nothing is refused because of it.
"""

from typing import Final

from palyra_egress.destination.hostpattern import HostPattern, PatternKind

SHARED_SUFFIXES: Final = frozenset(
    {
        # pages and application hosting
        "appspot.com",
        "azurewebsites.net",
        "blogspot.com",
        "deno.dev",
        "firebaseapp.com",
        "fly.dev",
        "github.io",
        "gitlab.io",
        "glitch.me",
        "herokuapp.com",
        "netlify.app",
        "ondigitalocean.app",
        "onrender.com",
        "pages.dev",
        "replit.app",
        "replit.dev",
        "run.app",
        "supabase.co",
        "surge.sh",
        "up.railway.app",
        "vercel.app",
        "web.app",
        "workers.dev",
        # functions, gateways, load balancers, content networks
        "amazonaws.com",
        "azureedge.net",
        "azurefd.net",
        "cloudapp.net",
        "cloudfront.net",
        "cloudfunctions.net",
        "fastly.net",
        "on.aws",
        "trafficmanager.net",
        # buckets and raw files
        "backblazeb2.com",
        "digitaloceanspaces.com",
        "githubusercontent.com",
        "r2.dev",
        "storage.googleapis.com",
        "windows.net",
        # tunnels into anybody's machine, names for any address
        "loca.lt",
        "ngrok-free.app",
        "ngrok.app",
        "ngrok.io",
        "nip.io",
        "serveo.net",
        "sslip.io",
        "trycloudflare.com",
        "ts.net",
    }
)


def is_shared(pattern: HostPattern) -> bool:
    """True if the pattern is a wildcard over a shared suffix, or over a parent of one."""
    if pattern.kind not in (PatternKind.BELOW, PatternKind.NAME_AND_BELOW):
        return False
    name = pattern.name
    return name in SHARED_SUFFIXES or any(known.endswith(f".{name}") for known in SHARED_SUFFIXES)
