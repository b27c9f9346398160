"""The network of a home: every name in it carries a digest of the home's path."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from executions.sandbox.network import cni
from executions.sandbox.network.attachment import Network
from executions.sandbox.network.errors import NetworkError
from executions.sandbox.network.rules import Rules

PLUGIN_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
"""Where Debian, everybody else, and Fedora have the CNI plugins."""


def digest_of(home: Path) -> str:
    """Tells what is ours on a host from what another home has there."""
    return hashlib.sha256(str(home).encode()).hexdigest()[:8]


def subnet_of(digest: str) -> str:
    """A /22 of 10.192.0.0/11 for each home: two on one host rarely get the same."""
    number = int(digest, 16)
    return f"10.{192 + number % 32}.{number // 32 % 64 * 4}.0/22"


def network_of(
    home: Path,
    *,
    subnet: str = "",
    configuration: str = "",
    opened: Sequence[str] = (),
    resolvers: Sequence[str] = (),
) -> Network:
    """`configuration` is an operator's CNI file, which gives the addresses then; else `subnet`."""
    digest, directory = digest_of(home), home / "network"
    if configuration:
        subnet, plugins = "", _plugins(Path(configuration))
    else:
        subnet = subnet or subnet_of(digest)
        ours = cni.bridge(
            name=f"boxer-{digest}",
            device=f"bx{digest}",
            subnet=subnet,
            addresses=directory / "addresses",
        )
        plugins = cni.Plugins((ours,), PLUGIN_DIRECTORIES)
    rules = Rules(
        table=f"boxer_{digest}",
        bridges=plugins.bridges(),
        opened=tuple(opened),
        # Sandboxes have no IPv6.
        resolvers=tuple(server for server in resolvers if ":" not in server),
    )
    return Network(directory, home / "workers", subnet, plugins, rules)


def _plugins(configuration: Path) -> cni.Plugins:
    """One that can't be read keeps nobody from removing what was made by it."""
    try:
        return cni.Plugins(cni.read(configuration), PLUGIN_DIRECTORIES)
    except NetworkError as error:
        return cni.Plugins((), PLUGIN_DIRECTORIES, lack=f"BOXER_CNI_CONFIG: {error}")
