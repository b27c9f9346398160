"""`make bench`: its arithmetic, its report, and one short go that shows it measures everything."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bare import CGROUPS, RunscFailed, bare_runsc
from benchmarks.client import Answer
from benchmarks.figures import Bar, Figure, Judged, percentile, rate, ratio
from benchmarks.idle import cpu_secs
from benchmarks.machine import busy_warning, machine, versions
from benchmarks.plan import FULL, NAMES, SMOKE, WAYS, chosen
from benchmarks.report import Report, phases, table
from benchmarks.runs import BARS, Samples, way_figures
from benchmarks.throughput import under_load
from tests.environment import new_home
from tests.leftovers import leftovers
from tests.made_images import python_image

ROOT = Path(__file__).resolve().parent.parent


# ── Arithmetic ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("samples", "percent", "expected"),
    [
        ([7.0], 95, 7.0),
        ([3.0, 1.0, 2.0], 50, 2.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.5),
        ([float(n) for n in range(101)], 95, 95.0),
        ([0.0, 10.0], 95, 9.5),
        ([1.0, 2.0, 3.0], 100, 3.0),
    ],
)
def test_a_percentile_lies_between_its_neighbours(
    samples: list[float], percent: float, expected: float
) -> None:
    assert percentile(samples, percent) == pytest.approx(expected)


def test_no_samples_make_no_percentile() -> None:
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)


def test_a_ratio_is_of_medians_so_that_one_slow_run_changes_nothing() -> None:
    assert ratio([40.0, 50.0, 5000.0], [100.0, 100.0, 100.0]) == pytest.approx(0.5)


def test_a_rate_is_what_always_busy_clients_get() -> None:
    assert rate([0.5, 0.5, 0.5, 0.5], 1) == pytest.approx(2.0)
    assert rate([2.0, 2.0], 8) == pytest.approx(4.0)


@pytest.mark.parametrize(
    ("bar", "value", "holds"),
    [
        (Bar(0.45), 0.45, True),
        (Bar(0.45), 0.451, False),
        (Bar(0.95, at_least=True), 0.95, True),
        (Bar(0.95, at_least=True), 0.949, False),
    ],
)
def test_a_bar_is_held_up_to_its_limit(bar: Bar, value: float, holds: bool) -> None:
    assert bar.holds(value) is holds


def test_a_bar_is_about_the_ratio_or_about_the_median() -> None:
    slow_but_in_proportion = Figure("k", "n", "ms", (500.0,), 0.4, "bare p50", Bar(0.45))
    assert slow_but_in_proportion.holds is True
    absolute = Figure("k", "n", "ms", (500.0,), 0.4, "bare p50", Bar(12, Judged.MEDIAN))
    assert absolute.holds is False
    assert Figure("k", "n", "ms", (500.0,), 0.4, "bare p50").holds is None
    assert Figure("k", "n", "ms", (500.0,), None, "", Bar(0.45)).holds is False


def test_time_of_processes_that_died_between_two_looks_is_neither_lost_nor_counted_twice() -> None:
    import psutil

    burn = "import time\nwhile time.process_time() < %s: pass\n"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn % 0.4!r}])\n"
    waits = "input(); "
    parent = [sys.executable, "-c", f"{waits}\n{script}\nprint('ran', flush=True); input()"]
    with subprocess.Popen(parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            watched = psutil.Process(process.pid)
            before = cpu_secs([watched])
            process.stdin.write(b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"ran\n"
            assert 0.35 < cpu_secs([watched, *watched.children(recursive=True)]) - before < 1.5
        finally:
            process.kill()


# ── Load ─────────────────────────────────────────────────────────────────────────────────────────


def test_load_counts_no_cycle_of_the_ramp_and_ends_when_everybody_has_been_counted() -> None:
    started: list[float] = []
    lock = threading.Lock()

    def run() -> None:
        with lock:
            started.append(time.perf_counter())
        time.sleep(0.05)

    begun = time.perf_counter()
    cycles = under_load([run, run], 0.2, 0.3)
    after_ramp = sum(moment >= begun + 0.2 for moment in started)
    assert 2 <= len(cycles) <= after_ramp < len(started)
    assert all(cycle >= 0.05 for cycle in cycles)


def test_runs_longer_than_the_whole_window_are_counted_all_the_same() -> None:
    cycles = under_load([lambda: time.sleep(0.3), lambda: time.sleep(0.3)], 0.01, 0.05)
    assert len(cycles) >= 2


def test_a_failing_run_ends_the_load_and_is_told() -> None:
    def fail() -> None:
        raise RunscFailed("it broke")

    begun = time.monotonic()
    with pytest.raises(RunscFailed, match="it broke"):
        under_load([fail, lambda: time.sleep(0.01)], 60, 60)
    assert time.monotonic() - begun < 30


# ── Choosing ─────────────────────────────────────────────────────────────────────────────────────


def test_everything_is_measured_unless_something_is_named() -> None:
    assert chosen([]) == set(NAMES)


def test_a_way_of_running_is_never_measured_without_bare_runsc_beside_it() -> None:
    assert chosen(["warm"]) == {"warm", "bare"}
    assert chosen(["warm,idle", "cold"]) == {"warm", "bare", "idle", "cold"}
    assert chosen(["idle"]) == {"idle"}


def test_a_name_that_does_not_exist_is_told() -> None:
    with pytest.raises(ValueError, match="'wram': must be one of bare, cold, warm"):
        chosen(["wram"])
    done = bench("--only", "wram")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'wram': must be one of" in done.stderr


def test_the_pages_of_the_admin_are_measured_by_themselves(tmp_path: Path) -> None:
    place, file = new_home(), tmp_path / "result.json"
    place.chmod(0o711)  # PostgreSQL's own user goes through it
    done = bench("--smoke", "--only", "admin", "--json", str(file), TMPDIR=str(place))
    assert done.returncode == 0, done.stderr
    measured = {figure["key"]: figure for figure in json.loads(file.read_text())["figures"]}
    assert {"admin.executions", "admin.overview", "admin.one_execution"} <= set(measured)
    assert {figure["bar"]["judged"] for figure in measured.values()} == {"p95"}
    assert {figure["count"] for figure in measured.values()} == {SMOKE.requests}
    assert list(place.iterdir()) == []


def test_a_full_go_is_bounded_to_less_than_six_minutes() -> None:
    level = FULL.ramp_secs * 2 + FULL.window_secs * 2
    secs = FULL.round_secs + FULL.burst_secs + FULL.idle_secs + level * len(FULL.levels)
    assert secs < 260  # the rest is for starting, files and pulls


# ── Report ───────────────────────────────────────────────────────────────────────────────────────


def answers(*latencies: float) -> list[Answer]:
    return [
        Answer(latency=latency, queue=2.0, pull=1.0, start=3.0, wall=latency - 10.0)
        for latency in latencies
    ]


def figures() -> list[Figure]:
    samples = Samples({"bare": [200.0, 220.0, 210.0]})
    for warm, cold in zip(answers(100.0, 105.0, 95.0), answers(300.0, 310.0, 290.0), strict=True):
        samples.add("warm", warm)
        samples.add("cold", cold)
    return list(way_figures(samples))


def report() -> Report:
    return Report(
        started="2026-01-02T03:04:05+00:00",
        plan="full",
        command=("python3",),
        machine={"cpu": "A CPU", "cores": 2},
        versions={"runsc": "1"},
        load=(0.25, 0.1, 0.0),
        settings={"BOXER_WORKERS": "4"},
        warnings=["it is busy here"],
        figures=figures(),
    )


def test_the_phases_of_a_warm_run_add_up_to_what_its_client_waited() -> None:
    for answer in answers(100.0, 250.0):
        phases = answer.queue + answer.pull + answer.start + answer.wall + answer.rest
        assert phases == pytest.approx(answer.latency)
        assert answer.overhead == pytest.approx(10.0)


def test_every_way_is_held_against_bare_runsc_and_its_bar() -> None:
    found = {figure.key: figure for figure in figures()}
    assert found["runs.warm"].ratio == pytest.approx(100 / 210)
    assert found["runs.warm"].bar == BARS["warm"] == Bar(0.45)
    assert found["runs.warm"].holds is False
    assert found["runs.cold"].holds is False
    assert found["overhead"].median == pytest.approx(10.0)
    assert found["overhead"].holds is True


def test_a_warm_run_that_had_to_boot_does_not_hide() -> None:
    samples = Samples({"bare": [200.0]})
    samples.add("warm", Answer(latency=400.0, queue=1.0, pull=1.0, start=250.0, wall=90.0))
    names = [figure.name for figure in way_figures(samples)]
    assert any("1 of 1 weren't" in name for name in names)


def test_the_table_says_which_bars_hold_and_its_columns_stand_below_each_other() -> None:
    lines = table(figures())
    head = lines[0]
    cold = next(line for line in lines if line.startswith("POST /run, cold"))
    assert cold.endswith("NO")
    assert cold[head.index("median") : head.index("median") + 6].strip() == "300.0"
    assert cold[: head.index("bar") + 3].rstrip().endswith("≤ 1.15")
    assert "p95" in head
    assert not any(line != line.rstrip() for line in lines)


def test_the_text_tells_the_phases_of_every_way_of_running() -> None:
    lines = report().as_text().splitlines()
    head = next(line for line in lines if line.startswith("median ms of each phase"))
    assert head.split()[5:] == ["queue", "pull", "start", "wall", "rest", "whole"]
    row = lines[lines.index(head) + 2 :][:2]
    told = {line.rsplit(maxsplit=6)[0]: line.split()[-6:] for line in row}
    assert told["POST /run, warm"] == ["2.0", "1.0", "3.0", "90.0", "4.0", "100.0"]
    assert told["POST /run, cold"] == ["2.0", "1.0", "3.0", "290.0", "4.0", "300.0"]


def test_a_report_without_runs_has_no_phases() -> None:
    assert phases([Figure("idle.cpu", "idle", "%", (1.0,))]) == []


def test_the_text_tells_machine_versions_load_settings_and_warnings() -> None:
    text = report().as_text()
    for told in ("A CPU", "runsc 1", "0.25 0.10 0.00", "BOXER_WORKERS 4", "it is busy here"):
        assert told in text
    assert "1 of 3 bars hold" in text


def test_the_json_has_every_sample_and_survives_a_round_trip() -> None:
    document = json.loads(json.dumps(report().as_json()))
    warm = next(figure for figure in document["figures"] if figure["key"] == "runs.warm")
    assert warm["samples"] == [100.0, 105.0, 95.0]
    assert (warm["median"], warm["count"], warm["unit"]) == (100.0, 3, "ms")
    assert warm["bar"] == {"limit": 0.45, "kind": "at_most", "judged": "ratio"}
    assert warm["holds"] is False
    assert document["machine"]["cores"] == 2


def test_a_busy_machine_is_warned_about() -> None:
    assert "2.50" in busy_warning(2.5)
    assert busy_warning(0.5) == ""


def test_the_machine_and_every_version_are_known() -> None:
    assert all(machine().values())
    assert all(versions("runsc").values())


# ── For real ─────────────────────────────────────────────────────────────────────────────────────


def test_bare_runsc_is_held_to_the_same_limits_and_leaves_nothing(python_rootfs: Path) -> None:
    limits = (
        "import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_NPROC))"
    )
    with bare_runsc(python_rootfs, ["python3", "-c", limits], slots=1) as bare:
        assert bare.run(0, b"(256, 256) (64, 64)\n") > 0
    hungry = "x = b'x' * (400 << 20); print('fed')"
    with (
        bare_runsc(python_rootfs, ["python3", "-c", hungry], slots=1) as bare,
        pytest.raises(RunscFailed, match="runsc run ended with"),
    ):
        bare.run(0, b"fed\n")
    assert list(CGROUPS.glob(f"*/{bare.group}")) == []
    assert not bare.directory.exists()


def bench(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=500,
    )


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_short_go_measures_everything_and_leaves_nothing(tmp_path: Path) -> None:
    place, file = new_home(), tmp_path / "result.json"
    place.chmod(0o711)  # PostgreSQL's own user goes through it
    archive = str(python_image())
    done = bench("--smoke", "--json", str(file), "--archive", archive, TMPDIR=str(place))
    assert done.returncode == 0, done.stderr
    document = json.loads(file.read_text())
    measured = {figure["key"]: figure for figure in document["figures"]}
    assert expected_keys() <= set(measured)
    assert all(figure["median"] >= 0 for figure in measured.values())
    bars = [figure["key"] for figure in document["figures"] if figure["bar"]]
    assert {"runs.warm", "runs.cold", "runs.input", "overhead", "bursts.warm"} <= set(bars)
    assert str(file) in done.stdout
    assert_all_of_it_ran(measured)
    assert leftovers([place]) == []
    assert list(place.iterdir()) == []


def expected_keys() -> set[str]:
    keys = {f"runs.{way}" for way in WAYS} | {"overhead", "bursts.warm", "bursts.plain"}
    keys |= {f"phase.{phase}" for phase in ("queue", "pull", "start", "wall", "rest")}
    keys |= {f"throughput.{at}.{who}" for at in SMOKE.levels for who in ("bare", "service")}
    keys |= {"idle.cpu", "idle.memory", "idle.memory.sandboxes", "pull.tools", "pull.first"}
    keys |= {"admin.executions", "admin.overview", "admin.one_execution", "admin.a_day"}
    for what in ("upload", "download"):
        keys |= {f"files.{what}.{size}" for size in SMOKE.sizes_mb}
        keys |= {f"files.{what}.{size}.growth" for size in SMOKE.sizes_mb}
    return keys


def assert_all_of_it_ran(measured: dict[str, Any]) -> None:
    """As far as that shows without looking at times."""
    assert {measured[f"runs.{way}"]["count"] for way in WAYS} == {SMOKE.rounds}
    assert measured["bursts.warm"]["count"] == 4 * SMOKE.bursts
    assert measured["idle.memory.sandboxes"]["median"] > 10
    assert measured["idle.processes"]["median"] > 10
