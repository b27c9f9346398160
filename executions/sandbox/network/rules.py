"""nftables: what a sandbox may reach, and the figures of what it did; two tables of our own.

One script makes the rules and puts them back: it adds what is missing and leaves what is there, in
one transaction, so that no packet passes while there is only half of it. Figures are counters at
the elements of sets, which survive that. Source: nft(8).
"""

import ipaddress
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from executions.sandbox import processes
from executions.sandbox.network.errors import NetworkError
from executions.sandbox.spec import Traffic

NFT_SECS = 20.0

CLOSED = (
    # The IANA IPv4 Special-Purpose Address Registry: what isn't the outside, and multicast.
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
COUNTED = ("sent", "received", "refused")

_COUNTER = re.compile(r"counter packets (\d+) bytes (\d+)")


@dataclass(frozen=True, slots=True)
class Member:
    """One sandbox as the rules know it."""

    address: str
    mac: str
    ports: tuple[str, ...]
    """Interfaces on the host that are its alone: its veth's other end."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The tables `inet NAME` and `bridge NAME`."""

    table: str
    bridges: tuple[str, ...]
    """What the ports of all sandboxes are plugged into."""
    opened: tuple[str, ...]
    """Networks that are reached although their range is closed."""
    resolvers: tuple[str, ...]
    """IPv4 addresses that are reached at port 53 wherever they are."""
    binary: str = "nft"

    def script(self, members: Iterable[Member]) -> str:
        """Makes all of it, or completes what is there."""
        inet, bridge = f"inet {self.table}", f"bridge {self.table}"
        lines = [
            f"add table {inet}",
            f"add table {bridge}",
            f"add set {inet} inner {{ type ifname; }}",
            f"add set {inet} addresses {{ type ipv4_addr; }}",
            *(f"add set {inet} {name} {{ type ipv4_addr; counter; }}" for name in COUNTED),
            *(f'add element {inet} inner {{ "{name}" }}' for name in self.bridges),
            *_networks(inet, "opened", self.opened),
            *_networks(inet, "closed", CLOSED),
            *_networks(inet, "resolvers", self.resolvers),
            f"add set {bridge} ports {{ type ifname; }}",
            f"add set {bridge} owners {{ typeof iifname . ether saddr . ip saddr; }}",
        ]
        for family, chains in ((inet, _INET), (bridge, _BRIDGE)):
            # Chains before rules: these jump.
            for chain, hook, _ in chains:
                lines += [f"add chain {family} {chain} {hook}", f"flush chain {family} {chain}"]
            for chain, _, rules in chains:
                lines += [f"add rule {family} {chain} {rule}" for rule in rules]
        for member in members:
            lines += self._elements("add", member)
        return "\n".join(lines) + "\n"

    def _elements(self, action: str, member: Member) -> list[str]:
        inet, bridge = f"inet {self.table}", f"bridge {self.table}"
        names = [f'"{name}"' for name in member.ports]
        ports = ", ".join(names)
        owners = ", ".join(f"{name} . {member.mac} . {member.address}" for name in names)
        return [
            *(
                f"{action} element {inet} {name} {{ {member.address} }}"
                for name in ("addresses", *COUNTED)
            ),
            f"{action} element {inet} inner {{ {ports} }}",
            f"{action} element {bridge} ports {{ {ports} }}",
            f"{action} element {bridge} owners {{ {owners} }}",
        ]

    def apply(self, members: Iterable[Member], held: int | None = None) -> None:
        """Raises NetworkError."""
        self._nft(["-f", "-"], self.script(members), held)

    def refuse_reason(self) -> str:
        """Why the kernel wouldn't take the rules; empty when it would."""
        try:
            self._nft(["-c", "-f", "-"], self.script(()), None)
        except NetworkError as error:
            return str(error)
        return ""

    def forget(self, member: Member, held: int | None = None) -> None:
        """Take a sandbox out. Raises NetworkError, also where the tables are gone."""
        # Added first, so that nothing is missing: one that is would keep the others.
        lines = [*self._elements("add", member), *self._elements("delete", member)]
        self._nft(["-f", "-"], "\n".join(lines) + "\n", held)

    def figures(self, address: str) -> Traffic:
        """Bytes of IPv4 packets, and packets that asked for a connection and were refused.

        Raises NetworkError.
        """
        asked = "; ".join(
            f"get element inet {self.table} {name} {{ {address} }}" for name in COUNTED
        )
        found = _COUNTER.findall(self._nft([asked], "", None))
        if len(found) != len(COUNTED):
            raise NetworkError(f"nft has no figures of {address}")
        (_, sent), (_, received), (refused, _) = found
        return Traffic(int(sent), int(received), int(refused))

    def listing(self) -> str:
        """The rules and sets as they stand, without what changes; empty where a table is gone."""
        try:
            return "".join(
                self._nft(["-s", "-t", "list", "table", family, self.table], "", None)
                for family in ("inet", "bridge")
            )
        except NetworkError:
            return ""

    def addresses(self) -> set[str]:
        """Every address that the tables know. Raises NetworkError."""
        listed = self._nft(["list", "set", "inet", self.table, "addresses"], "", None)
        return set(re.findall(r"\d+\.\d+\.\d+\.\d+", listed))

    def remove(self) -> None:
        """Delete both tables. May be repeated. Raises NetworkError."""
        for family in ("inet", "bridge"):
            name = f"table {family} {self.table}"
            self._nft(["-f", "-"], f"add {name}\ndelete {name}\n", None)

    def _nft(self, arguments: Sequence[str], script: str, held: int | None) -> str:
        try:
            done = subprocess.run(
                [self.binary, *arguments],
                input=script.encode(),
                capture_output=True,
                env=processes.environment(),
                pass_fds=() if held is None else (held,),
                timeout=NFT_SECS,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NetworkError(f"nft: {error}") from error
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()
            raise NetworkError(f"nft: {' | '.join(said[:3])[:400]}")
        return done.stdout.decode()


def _networks(table: str, name: str, networks: Sequence[str]) -> list[str]:
    """A set of IPv4 networks as they are today, whatever was in it before."""
    lines = [
        f"add set {table} {name} {{ type ipv4_addr; flags interval; auto-merge; }}",
        f"flush set {table} {name}",
    ]
    if networks:
        whole = ", ".join(str(ipaddress.IPv4Network(one)) for one in networks)
        lines.append(f"add element {table} {name} {{ {whole} }}")
    return lines


_OWNS_ETHER = "iifname . ether saddr . arp saddr ip @owners"
_OWNS_ARP = "iifname . arp saddr ether . arp saddr ip @owners"
_DNS = "ip daddr @resolvers meta l4proto { tcp, udp } th dport 53"

# (chain, its hook, its rules). Before the host's own filter, whose verdict still counts after ours.
_INET: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "forward",
        "{ type filter hook forward priority -10; policy accept; }",
        (
            "iifname @inner jump leaving",
            "oifname @inner jump arriving",
        ),
    ),
    (
        "leaving",
        "",
        (
            # None of its own, or one that has no rules yet: nothing gets out.
            "meta nfproto ipv6 drop",
            "ip saddr != @addresses drop",
            "oifname @inner jump refuse",
            "ct state invalid drop",
            "ct state established,related jump sent",
            f"{_DNS} jump sent",
            "ip daddr @opened jump sent",
            "ip daddr @closed jump refuse",
            "fib daddr type != unicast jump refuse",
            "jump sent",
        ),
    ),
    ("sent", "", ("ip saddr @sent accept", "drop")),
    (
        "arriving",
        "",
        (
            "ct state established,related ip daddr @received accept",
            "drop",
        ),
    ),
    (
        "refuse",
        "",
        (
            # Told at once, a program doesn't ask again and again: one attempt counts once.
            "ip saddr @refused meta l4proto tcp reject with tcp reset",
            "ip saddr @addresses reject with icmp type admin-prohibited",
            "drop",
        ),
    ),
    (
        "input",
        "{ type filter hook input priority -10; policy accept; }",
        ("iifname @inner jump host",),
    ),
    (
        "host",
        "",
        (
            "meta nfproto ipv6 drop",
            "ip saddr != @addresses drop",
            "ct state established,related accept",
            f"{_DNS} jump sent",
            "jump refuse",
        ),
    ),
    (
        "nat",
        "{ type nat hook postrouting priority 100; policy accept; }",
        ("ip saddr @addresses oifname != @inner masquerade",),
    ),
)
_BRIDGE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "prerouting",
        "{ type filter hook prerouting priority -350; policy accept; }",
        (
            # A sandbox speaks for itself alone, in ARP as well, and nothing but IPv4.
            "iifname != @ports accept",
            f"{_OWNS_ETHER} {_OWNS_ARP} accept",
            "iifname . ether saddr . ip saddr @owners accept",
            "drop",
        ),
    ),
    (
        # From one sandbox's port to another's. To and from the host no frame comes this way.
        "forward",
        "{ type filter hook forward priority -350; policy accept; }",
        ("iifname @ports drop", "oifname @ports drop"),
    ),
)
