"""CNI plugins: they give a namespace its interface and address, and take them back.

Source: github.com/containernetworking/cni, SPEC.md, versions 0.4.0 and 1.0.0.
"""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executions.sandbox import processes
from executions.sandbox.network.errors import NetworkError

PLUGIN_SECS = 20.0
INTERFACE = "eth0"
"""What the sandbox's own end is called."""


@dataclass(frozen=True, slots=True)
class Given:
    """What ADD made."""

    address: str
    """IPv4, without its prefix length."""
    mac: str
    ports: tuple[str, ...]
    """The other end of its interface, on the host."""


@dataclass(frozen=True, slots=True)
class Plugins:
    """A CNI network: its plugins are called one after another, each given the result before it."""

    configurations: tuple[Mapping[str, Any], ...]
    directories: tuple[Path, ...]
    lack: str = ""
    """Why there are none."""

    def names(self) -> set[str]:
        """Every program it takes, those that give addresses included."""
        types = {str(one["type"]) for one in self.configurations}
        ipams = [one["ipam"] for one in self.configurations if one.get("ipam")]
        return types | {str(ipam["type"]) for ipam in ipams}

    def find(self, name: str) -> Path:
        """Raises NetworkError."""
        for directory in self.directories:
            if (directory / name).is_file():
                return directory / name
        where = ", ".join(map(str, self.directories))
        raise NetworkError(f"the CNI plugin {name} is in none of {where}")

    def add(self, container: str, netns: Path, held: int) -> Given:
        """Raises NetworkError; what was made by then is delete()'s to remove.

        The plugins keep the descriptor `held` open, so that its lock tells whether they still run.
        """
        if self.lack:
            raise NetworkError(self.lack)
        result: dict[str, Any] | None = None
        for one in self.configurations:
            previous = {} if result is None else {"prevResult": result}
            answer = self._call("ADD", {**one, **previous}, container, netns, held)
            try:
                result = json.loads(answer)
            except ValueError as error:
                raise NetworkError(f"the CNI plugin {one['type']} answered: {error}") from error
        return given(result or {}, self.bridges())

    def bridges(self) -> tuple[str, ...]:
        """Interfaces on the host that all its sandboxes share; the plugin's default is cni0."""
        return tuple(
            str(one.get("bridge", "cni0")) for one in self.configurations if one["type"] == "bridge"
        )

    def delete(self, container: str, netns: Path | None, held: int) -> None:
        """Every plugin is called, in reverse, whatever the others say. Raises NetworkError."""
        failed: NetworkError | None = None
        for one in reversed(self.configurations):
            try:
                self._call("DEL", one, container, netns, held)
            except NetworkError as error:
                failed = failed or error
        if failed:
            raise failed

    def _call(
        self, command: str, given: Mapping[str, Any], container: str, netns: Path | None, held: int
    ) -> bytes:
        plugin = self.find(str(given["type"]))
        environment = {
            **processes.environment(),
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": str(netns) if netns else "",
            "CNI_IFNAME": INTERFACE,
            "CNI_PATH": ":".join(map(str, self.directories)),
        }
        try:
            done = subprocess.run(
                [plugin],
                input=json.dumps(given).encode(),
                capture_output=True,
                env=environment,
                pass_fds=(held,),
                timeout=PLUGIN_SECS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NetworkError(f"the CNI plugin {plugin}, {command}: {error}") from error
        if done.returncode != 0:
            why = _message(done.stdout) or done.stderr.decode(errors="replace").strip()[-300:]
            raise NetworkError(f"the CNI plugin {plugin}, {command}: {why or done.returncode}")
        return done.stdout


def _message(answer: bytes) -> str:
    try:
        told = json.loads(answer)
        return " ".join(str(told[key]) for key in ("msg", "details") if told.get(key))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def given(result: Mapping[str, Any], bridges: Sequence[str]) -> Given:
    """Raises NetworkError where our rules would find nothing to hold on to."""
    interfaces: Sequence[Mapping[str, Any]] = result.get("interfaces") or ()
    outside = [str(one["name"]) for one in interfaces if not one.get("sandbox")]
    ports = tuple(name for name in outside if name not in bridges)
    inside = [one for one in interfaces if one.get("sandbox") and one.get("mac")]
    addresses = [str(one["address"]).partition("/")[0] for one in result.get("ips") or ()]
    addresses = [address for address in addresses if ":" not in address]
    if not ports or len(inside) != 1 or len(addresses) != 1:
        raise NetworkError(
            "the CNI configuration must give a sandbox one interface, one IPv4 address, and an"
            f" interface on the host that rules can be bound to; it gave {json.dumps(result)[:300]}"
        )
    return Given(addresses[0], str(inside[0]["mac"]), ports)


def bridge(*, name: str, device: str, subnet: str, addresses: Path) -> dict[str, Any]:
    """Our own network: a bridge of ours; NAT is left to our rules."""
    return {
        "cniVersion": "0.4.0",
        "name": name,
        "type": "bridge",
        "bridge": device,
        "isGateway": True,
        "isDefaultGateway": True,
        "ipMasq": False,
        "hairpinMode": False,
        "ipam": {
            "type": "host-local",
            "dataDir": str(addresses),
            "ranges": [[{"subnet": subnet}]],
        },
    }


def read(file: Path) -> tuple[Mapping[str, Any], ...]:
    """An operator's configuration, `.conf` or `.conflist`. Raises NetworkError."""
    try:
        told = json.loads(file.read_text())
        name, version = str(told["name"]), str(told.get("cniVersion", "0.4.0"))
        plugins = told.get("plugins", [told])
        whole = tuple({**one, "name": name, "cniVersion": version} for one in plugins)
        if not whole or not all(isinstance(one["type"], str) for one in whole):
            raise NetworkError(f"{file} names no plugin")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NetworkError(f"{file} isn't a CNI configuration: {error!r}") from error
    return whole
