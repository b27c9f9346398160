"""This host as the sandbox library sees it: tools, directories, cgroups, bounds."""

import shutil
from pathlib import Path

from django.conf import settings

from executions.sandbox import pool
from executions.sandbox.cgroups import Hierarchy
from executions.sandbox.network.attachment import Network
from executions.sandbox.network.home import digest_of, network_of
from executions.sandbox.runsc import Runsc
from executions.sandbox.sandbox import Host, install_tools
from executions.sandbox.spec import Bounds, SandboxError


def sandbox_group() -> str:
    """The cgroup below which a home's sandboxes have theirs."""
    return f"boxer-{digest_of(settings.BOXER_HOME)}"


def sandbox_host(directory: Path) -> Host:
    """Raises CgroupError when limits can't be set on this host."""
    home = settings.BOXER_HOME
    return Host(
        runsc=Runsc(settings.BOXER_RUNSC_PATH or "runsc", settings.BOXER_PLATFORM, home / "runsc"),
        hierarchy=None if settings.BOXER_IGNORE_CGROUPS else Hierarchy.of_host(sandbox_group()),
        tools=home / "tools",
        directory=directory,
        bounds=Bounds(
            output_bytes=settings.BOXER_OUTPUT_LIMIT_BYTES,
            output_dir_bytes=settings.BOXER_OUTPUT_DIR_LIMIT_BYTES,
            output_dir_files=settings.BOXER_OUTPUT_DIR_FILES_LIMIT,
            tmp_bytes=settings.BOXER_TMP_LIMIT_BYTES,
        ),
        dns_servers=settings.BOXER_DNS_SERVERS,
        network=sandbox_network(),
    )


PLUGIN_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"), Path("/usr/libexec/cni"))
"""Where Debian, everybody else, and Fedora have the CNI plugins."""


def sandbox_network() -> Network:
    """What network mode `sandbox` stands on."""
    return network_of(
        settings.BOXER_HOME,
        subnet=settings.BOXER_NETWORK_SUBNET,
        configuration=settings.BOXER_CNI_CONFIG,
        opened=settings.BOXER_EGRESS_ALLOW,
        resolvers=settings.BOXER_DNS_SERVERS,
    )


def prepare_host() -> str:
    """Directories and tools that every worker needs; the version of runsc. Raises SandboxError."""
    home = settings.BOXER_HOME
    for name in ("workers", "runsc"):
        (home / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    found = {name: shutil.which(name) for name in ("catatonit", "busybox")}
    for name, path in found.items():
        if path is None:
            raise SandboxError(f"{name} is missing")
    install_tools(
        home / "tools", init=Path(str(found["catatonit"])), busybox=Path(str(found["busybox"]))
    )
    return sandbox_host(home / "workers").runsc.version()


def pool_socket() -> Path:
    """Where workers of this host ask for a sandbox that is booted already."""
    return Path(settings.BOXER_HOME) / "pool.sock"


def pool_is_used() -> bool:
    """Without cgroups nothing tells what belongs to a sandbox that changes hands."""
    return settings.BOXER_POOL_SIZE > 0 and not settings.BOXER_IGNORE_CGROUPS


def pool_is_warm() -> bool:
    """Whether the pool has a sandbox of each pinned image that is to be had."""
    status = pool.status(pool_socket())
    return status is not None and status["pinned_missing"] == 0
