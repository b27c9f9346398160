"""Network `sandbox`: what a run reaches, what it doesn't, and that its network goes with it."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from executions.sandbox.network import namespace, upkeep
from executions.sandbox.network.attachment import Attachment, Network
from executions.sandbox.network.home import digest_of, network_of
from executions.sandbox.sandbox import Sandbox
from executions.sandbox.spec import RunResult
from tests.environment import new_home
from tests.fixtures_sandbox import House, run_spec
from tests.made_images import python_image
from tests.network_world import (
    ALSO_HOST,
    CARRIER,
    HOST,
    LAN,
    METADATA,
    NAME,
    NEIGHBOUR,
    OPENED,
    OUTSIDE,
    RESOLVER,
    World,
    a_world,
    inside,
    tool,
)
from tests.stack import Stack, manage
from tests.stack_access import execution, query, until

IMAGE = "boxer.local/python:1"


class Networked:
    """A Boxer in the world's host namespace."""

    def __init__(self, stack: Stack, world: World) -> None:
        self.stack = stack
        self.world = world
        self.digest = digest_of(stack.home)

    @property
    def log(self) -> str:
        return self.stack.log

    def run(self, script: str, **request: Any) -> dict[str, Any]:
        """What a Python program printed as JSON, with the execution's id as `exec_id`."""
        status, answer = self.ask(script, **request)
        assert status == 200, answer
        assert answer["exit_code"] == 0, answer
        return {"exec_id": answer["exec_id"], "told": json.loads(answer["stdout"])}

    def ask(self, script: str, **request: Any) -> tuple[int, Any]:
        whole = {
            "image": IMAGE,
            "cmd": ["python3", "-c", PRELUDE + script],
            "network": "sandbox",
            **request,
        }
        return self.world.on_host(lambda: self.stack.run(**whole))

    def rules(self) -> str:
        return self.world.nft("-s", "-t", "list", "ruleset")

    def records(self) -> list[Path]:
        return list((self.stack.home / "workers").glob("*/*/network.json"))

    def running(self) -> list[Path]:
        """The records of what isn't the pool's."""
        pool = f"{self.stack.part('pool').pid}-"
        return [one for one in self.records() if not one.parent.parent.name.startswith(pool)]

    def addresses(self) -> list[str]:
        """Of runs."""
        with contextlib.suppress(FileNotFoundError):
            told = [json.loads(record.read_text()) for record in self.running()]
            return [one["address"] for one in told if one]
        return []


PRELUDE = """
import json, socket
def tell(what): print(json.dumps(what))
def reach(address, port=80, family=socket.AF_INET, timeout=8):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(timeout)
        try:
            s.connect((address, port))
            return s.recv(100).decode().strip()
        except OSError as error:
            return type(error).__name__
"""


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with a_world(new_home()) as made:
        yield made


@pytest.fixture(scope="module")
def boxer(world: World) -> Iterator[Networked]:
    home = new_home()
    imported = manage("images", "import", str(python_image()), IMAGE, home=home, timeout=120)
    assert imported.returncode == 0, imported.stderr
    env = {
        "BOXER_DNS_SERVERS": RESOLVER,
        "BOXER_EGRESS_ALLOW": "172.20.1.0/24",
        "BOXER_POOL_SIZE": "1",
    }
    stack = Stack("--workers", "3", home=home, env=env)
    stack.command = ["nsenter", f"--net={world.host}", *stack.command]
    with stack:
        yield Networked(stack, world)
    assert world.nft("list", "ruleset") == ""
    assert f"bx{digest_of(home)}" not in world.ip(world.host, "-br", "link")
    assert not (home / "network").exists()


def test_the_outside_is_reached_by_name_and_sees_the_host_s_address(boxer: Networked) -> None:
    found = boxer.run(f"tell([reach('{NAME}'), reach('{OUTSIDE}'), reach('{OPENED}')])")
    assert found["told"] == [f"you are {HOST}"] * 3
    assert NAME in boxer.world.asked


def test_what_is_no_outside_is_refused_and_counted(boxer: Networked) -> None:
    before = len(boxer.world.seen)
    closed = [METADATA, NEIGHBOUR, CARRIER, LAN, HOST, ALSO_HOST, "127.0.0.1"]
    multicast = "reach('224.0.0.1', timeout=1)"
    found = boxer.run(f"tell([reach(a) for a in {[*closed, RESOLVER]}] + [{multicast}])")
    assert not [told for told in found["told"] if "you are" in told]
    assert boxer.world.seen[before:] == []
    row = execution(boxer.stack, found["exec_id"])
    assert row["net_refused"] >= 6


def test_the_figures_are_those_of_what_passed(boxer: Networked) -> None:
    size = 300_000
    found = boxer.run(f"""
s = socket.create_connection(('{OUTSIDE}', 80), 5)
s.recv(100)
s.sendall(b'x' * {size})
s.shutdown(socket.SHUT_WR)
got = 0
while chunk := s.recv(65536): got += len(chunk)
tell([got] + [reach('{NEIGHBOUR}') for _ in range(3)])
""")
    assert found["told"] == [size, *["ConnectionRefusedError"] * 3]
    row = execution(boxer.stack, found["exec_id"])
    # Headers of TCP and IP, acknowledgements, and packets sent again come on top.
    assert size < row["net_sent_bytes"] < 2 * size
    assert size < row["net_received_bytes"] < 2 * size
    assert row["net_refused"] == 3


def test_a_run_without_a_network_of_its_own_has_no_figures(boxer: Networked) -> None:
    found = boxer.run("tell(1)", network="none")
    assert execution(boxer.stack, found["exec_id"])["net_sent_bytes"] is None


def test_where_a_worker_host_lacks_it_the_run_is_refused_with_the_reason(boxer: Networked) -> None:
    sql = "UPDATE executions_workerhost SET network_lack = %s RETURNING id"
    query(boxer.stack, sql, "no plugin of that name")
    try:
        status, answer = boxer.ask("tell(1)")
    finally:
        query(boxer.stack, sql, "")
    assert (status, answer["code"]) == (400, "network_unavailable")
    assert "no plugin of that name" in answer["error"]


def test_ipv6_is_cut(boxer: Networked) -> None:
    six = ["2001:db8::10", "2001:db8::1", "fe80::1", "ff02::1"]
    found = boxer.run(f"tell([reach(a, 80, socket.AF_INET6) for a in {six}])")
    assert not [told for told in found["told"] if "you are" in told]
    assert "2001:" not in json.dumps(boxer.world.seen)


def test_two_runs_reach_neither_each_other_nor_does_anybody_outside_reach_them(
    boxer: Networked,
) -> None:
    serve = """
s = socket.create_server(('0.0.0.0', 7000))
s.settimeout(12)
try:
    tell([s.accept()[1][0]])
except TimeoutError:
    tell(['nobody'])
"""
    with ThreadPoolExecutor() as threads:
        server = threads.submit(boxer.run, serve)
        address = until(boxer.addresses, "the server's address")[0]
        world = boxer.world
        world.ip(world.outside, "route", "replace", f"{address}/32", "via", HOST)
        until(lambda: "running" in statuses(boxer), "it runs")
        tried = boxer.run(f"tell([reach('{address}', 7000)])")
        assert tried["told"] == ["ConnectionRefusedError"]
        assert execution(boxer.stack, tried["exec_id"])["net_refused"] == 1
        with pytest.raises(OSError, match=r"timed out|refused|unreachable"):
            inside(world.outside, lambda: socket.create_connection((address, 7000), 2))
        assert server.result()["told"] == ["nobody"]


def test_a_sandbox_speaks_for_its_own_address_alone(tmp_path: Path) -> None:
    """Not even what got out of gVisor into the namespace could pose as another."""
    host, home = tmp_path / "host", new_home()
    namespace.make(host)
    try:
        inside(host, lambda: _pose(network_of(home), home))
    finally:
        namespace.remove(host)


def _pose(network: Network, home: Path) -> None:
    bases = [home / "workers" / "w" / name for name in ("one", "two")]
    attachments = []
    for base in bases:
        base.mkdir(parents=True)
        attachments.append(Attachment(network, base.name, base))
    try:
        for attachment in attachments:
            attachment.attach()
        one, two = (json.loads((base / "network.json").read_text()) for base in bases)
        bridge = network.plugins.bridges()[0]
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as seen:
            seen.bind((bridge, 3))
            for mac, address in (
                (one["mac"], two["address"]),
                (two["mac"], two["address"]),
                (two["mac"], one["address"]),
                (one["mac"], one["address"]),
            ):
                inside(bases[0] / "netns", lambda: send(frame(mac, address)))  # noqa: B023
            seen.settimeout(10)
            frames = [seen.recv(2048)]
            seen.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while True:
                    frames.append(seen.recv(2048))
        ours = [got for got in frames if b"posing" in got]
        assert ours == [frame(one["mac"], one["address"])]
    finally:
        for attachment in attachments:
            attachment.detach()
        upkeep.remove(network)


def frame(mac: str, address: str) -> bytes:
    """An ARP reply to everybody: `address` is at `mac`; see RFC 826."""
    sender = bytes.fromhex(mac.replace(":", ""))
    who = sender + socket.inet_aton(address)
    arp = b"\0\1\x08\0\x06\x04\0\x02" + who + b"\xff" * 6 + socket.inet_aton("10.0.0.1")
    return b"\xff" * 6 + sender + b"\x08\x06" + arp + b"posing" + b"\0" * 12


def send(data: bytes) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("eth0", 0))
        sock.send(data)


def test_rules_that_somebody_flushed_are_back_and_figures_go_on(boxer: Networked) -> None:
    boxer.run("tell(1)")  # the tables are there
    until(lambda: boxer.digest in boxer.rules(), "the rules are there")
    wait = f"""
import time
for _ in range(10):  # the rules may be gone just then
    try:
        s = socket.create_connection(('{OUTSIDE}', 80), 2)
        break
    except OSError:
        time.sleep(0.2)
first = s.recv(100).decode().strip()
time.sleep(4)
tell([first, reach('{OUTSIDE}'), reach('{NEIGHBOUR}')])
"""
    with ThreadPoolExecutor() as threads:
        running = threads.submit(boxer.run, wait)
        until(lambda: "running" in statuses(boxer), "it runs")
        whole = boxer.rules()
        boxer.world.nft("flush", "ruleset")
        until(lambda: boxer.rules() == whole, "the rules are back", 5)
        boxer.world.nft("flush", "chain", "inet", f"boxer_{boxer.digest}", "leaving")
        until(lambda: boxer.rules() == whole, "a flushed chain is back", 5)
        assert boxer.addresses()[0] in boxer.world.nft("list", "ruleset")
        told = running.result()["told"]
    assert told[1:] == [f"you are {HOST}", "ConnectionRefusedError"]


def test_after_a_run_its_address_veth_and_namespace_are_gone(boxer: Networked) -> None:
    boxer.run("tell(1)")
    until_nothing_is_left(boxer)


def test_a_killed_worker_s_network_is_removed(boxer: Networked) -> None:
    """Killed at moments all through the making of a sandbox and its run."""
    with ThreadPoolExecutor(8) as threads:
        for pause in (0.0, 0.02, 0.04, 0.1, 0.5):
            asked = [threads.submit(boxer.ask, "import time; time.sleep(1)") for _ in range(3)]
            until(boxer.running, "a network is being made")
            time.sleep(pause)
            for record in boxer.records():
                # The pool, too: it makes one as soon as it has given one away.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(record.parent.parent.name.partition("-")[0]), signal.SIGKILL)
            for one in asked:
                one.result(60)
            boxer.world.on_host(lambda: boxer.stack.wait_until_ready(60))
    until_nothing_is_left(boxer)


def test_where_a_plugin_has_vanished_destroying_removes_everything_else(tmp_path: Path) -> None:
    """In a host namespace of its own, with the library alone."""
    home, host = new_home(), tmp_path / "host"
    namespace.make(host)
    try:
        inside(host, lambda: _vanishing(home))
    finally:
        namespace.remove(host)


def _vanishing(home: Path) -> None:
    network = network_of(home)
    base = home / "workers" / "w" / "one"
    base.mkdir(parents=True)
    attachment = Attachment(network, "one", base)
    attachment.attach()
    given = list((home / "network" / "addresses").glob("*/10.*"))
    assert len(given) == 1
    assert len(ports(network)) == 1
    without = dataclasses.replace(
        network, plugins=dataclasses.replace(network.plugins, directories=(home,))
    )
    Attachment(without, "one", base).detach()
    assert not given[0].exists()
    assert network.rules.addresses() == set()
    until(lambda: not ports(network), "the veth is gone with its namespace")
    assert not namespace.is_kept(base / "netns")
    upkeep.remove(network)
    assert tool("nft", "list", "ruleset") == ""
    assert not (home / "network").exists()


def ports(network: Network) -> list[str]:
    device = network.plugins.bridges()[0]
    return tool("ip", "-o", "link", "show", "master", device).splitlines()


def test_an_operator_s_own_plugins_are_held_to_the_same_rules(
    house: House, world: World, tmp_path: Path
) -> None:
    addresses, file = tmp_path / "addresses", tmp_path / "own.conflist"
    ipam = {
        "type": "host-local",
        "dataDir": str(addresses),
        "ranges": [[{"subnet": "10.66.0.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    own = {"cniVersion": "0.4.0", "name": "own", "plugins": [{"type": "ptp", "ipam": ipam}]}
    file.write_text(json.dumps(own))
    network = network_of(house.home, configuration=str(file))
    host = dataclasses.replace(house.host, network=network)
    script = f"for a in {OUTSIDE} {NEIGHBOUR} {HOST}; do nc -w 5 $a 80 </dev/null | head -1; done"

    def run() -> RunResult:
        assert network.lack() == ""
        sandbox = Sandbox(host, "boxer-own")
        try:
            sandbox.boot(house.rootfs, network="sandbox", inputs=(), cwd="/")
            return sandbox.execute(run_spec(sandbox, ("sh", "-c", script)), ())
        finally:
            sandbox.destroy()
            upkeep.remove(network)

    result = world.on_host(run)
    assert result.stdout == f"you are {HOST}\n".encode(), result.stderr
    assert result.traffic is not None
    assert result.traffic.refused == 2
    assert list(addresses.glob("own/10.*")) == []


def test_a_configuration_that_says_nothing_of_use_is_named(tmp_path: Path) -> None:
    file = tmp_path / "own.conf"
    for text in ("{", "[]", '{"name": "x"}', '{"name": "x", "plugins": []}'):
        file.write_text(text)
        assert str(file) in network_of(new_home(), configuration=str(file)).lack()
    file.write_text('{"name": "x", "type": "nowhere"}')
    assert "nowhere is in none of" in network_of(new_home(), configuration=str(file)).lack()


def test_two_homes_with_the_same_subnet_are_told_apart(tmp_path: Path) -> None:
    first, second = (network_of(new_home(), subnet="10.77.0.0/24") for _ in range(2))
    host = tmp_path / "host"
    namespace.make(host)

    def collide() -> None:
        base = first.workers / "w" / "one"
        base.mkdir(parents=True)
        attachment = Attachment(first, "one", base)
        try:
            attachment.attach()
            first.check_subnet()
            assert re.search("BOXER_NETWORK_SUBNET=10.77.0.0/24 overlaps", second.lack())
        finally:
            attachment.detach()
            upkeep.remove(first)

    try:
        inside(host, collide)
    finally:
        namespace.remove(host)


def statuses(boxer: Networked) -> set[str]:
    return {row["status"] for row in query(boxer.stack, "SELECT status FROM executions_execution")}


def traces(boxer: Networked) -> list[str]:
    """What is left of runs. Idle sandboxes of the pool have a network, too."""
    idle = {one.parent.name for one in boxer.records() if one.parent.name.startswith("warm-")}
    running = [str(one) for one in boxer.running()]
    addresses = boxer.stack.home / "network" / "addresses"
    given = [f"{file.name} of {file.read_text().split()[0]}" for file in addresses.glob("*/10.*")]
    bridge = f"bx{boxer.digest}"
    links = boxer.world.ip(boxer.world.host, "-o", "link", "show", "master", bridge).splitlines()
    listed = boxer.world.nft("list", "set", "inet", f"boxer_{boxer.digest}", "addresses")
    known = re.findall(r"\d+\.\d+\.\d+\.\d+", listed)
    return [
        *running,
        *(one for one in given if one.rpartition(" ")[2] not in idle),
        *(links if len(links) > len(idle) else []),
        *(known if len(known) > len(idle) else []),
    ]


def until_nothing_is_left(boxer: Networked) -> None:
    deadline = time.monotonic() + 60
    left = ["nobody has looked"]
    while left:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
        with contextlib.suppress(FileNotFoundError):  # what was just being removed
            left = traces(boxer)
