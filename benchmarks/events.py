"""How late a watcher sees what a run prints: from the line's own time to its arrival."""

import base64
import http.client
import json
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from benchmarks.client import TIMEOUT_SECS, ServiceFailed
from benchmarks.figures import Bar, Figure, Judged
from benchmarks.plan import Plan
from benchmarks.stage import IMAGE, Stage

BAR = Bar(150, Judged.P95)
EVERY_SECS = 0.1
CROWD = 100

# A sandbox's clock is the host's, read through gVisor's own calibration of it.
PROGRAM = f"""
import sys, time
time.sleep(2)
for _ in range(int(sys.argv[1])):
    print(time.time(), flush=True)
    time.sleep({EVERY_SECS})
"""


def measure_events(stage: Stage, plan: Plan) -> Iterator[Figure]:
    """One watcher, then a hundred of the same run, all of them counted."""
    stage.settle()
    for watchers in (1, CROWD):
        delays = _delays(stage.warm.base_url, plan.lines, watchers)
        who = "1 watcher" if watchers == 1 else f"{watchers} watchers"
        name = f"a line every 100 ms is seen after, {who}"
        yield Figure(f"events.{watchers}", name, "ms", tuple(delays), bar=BAR)


def _delays(base_url: str, lines: int, watchers: int) -> list[float]:
    """Milliseconds, for each line and watcher. Raises ServiceFailed when one is missing."""
    netloc = urlsplit(base_url).netloc
    command = ["python3", "-c", PROGRAM, str(lines)]
    exec_id = _submitted(netloc, {"image": IMAGE, "cmd": command})
    seen: list[list[float]] = [[] for _ in range(watchers)]
    threads = [
        threading.Thread(target=_watch, args=(netloc, exec_id, delays), daemon=True)
        for delays in seen
    ]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + TIMEOUT_SECS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if any(len(delays) != lines for delays in seen):
        counts = sorted({len(delays) for delays in seen})
        raise ServiceFailed(f"events of {exec_id}: {counts} lines seen of {lines}")
    return [delay for delays in seen for delay in delays]


def _submitted(netloc: str, request: dict[str, object]) -> str:
    connection = http.client.HTTPConnection(netloc, timeout=TIMEOUT_SECS)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/api/v1/executions/", json.dumps(request), headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    if response.status != 202:
        raise ServiceFailed(f"POST /api/v1/executions/: {response.status} {answer}")
    return str(answer["exec_id"])


def _watch(netloc: str, exec_id: str, delays: list[float]) -> None:
    connection = http.client.HTTPConnection(netloc, timeout=TIMEOUT_SECS)
    connection.request("GET", f"/api/v1/executions/{exec_id}/events/")
    response = connection.getresponse()
    event, printed = "", b""
    for line in response:
        now = time.time()
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            event = value
        elif name == "data" and event == "end":
            break
        elif name == "data" and event == "stdout":
            printed += base64.b64decode(json.loads(value)["base64"])
            *whole, printed = printed.split(b"\n")
            delays += [(now - float(told)) * 1000 for told in whole]
    connection.close()
