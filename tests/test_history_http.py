"""The pages of runs of a whole Boxer, as a browser gets them."""

import csv
import io
import json
import uuid

import httpx

from tests.fixtures_accounts import Account
from tests.stack import Stack
from tests.stack_access import query, until


def submit(client: httpx.Client, image: str, script: str, **more: object) -> str:
    body = {"image": image, "cmd": ["sh", "-c", script], **more}
    answer = client.post("/api/v1/executions/", json=body)
    assert answer.status_code == 202, answer.text
    exec_id: str = answer.json()["exec_id"]
    return exec_id


def ended(client: httpx.Client, exec_id: str) -> None:
    def over() -> bool:
        found = client.get(f"/api/v1/executions/{exec_id}/", params={"wait": 20}).json()
        return found["status"] in {"finished", "cancelled"}

    until(over, f"{exec_id} has ended", 60)


def test_a_run_is_told_with_its_output_files_and_use(
    accounts: dict[str, Account], busybox_reference: str
) -> None:
    script = r"printf '\033[32mgreen\033[0m'; echo '<b>' >&2; echo kept > '/output/a b.txt'"
    with accounts["carol"].browser() as browser:
        exec_id = submit(browser, busybox_reference, script, persist=True)
        ended(browser, exec_id)
        page = browser.get(f"/runs/{exec_id}/")
        assert page.status_code == 200
        assert '<span class="a-c2">green</span>' in page.text
        assert "&lt;b&gt;" in page.text
        assert f"/api/v1/executions/{exec_id}/files/a%20b.txt" in page.text
        assert "<meter" in page.text
        assert "sha256:" in page.text
        kept = browser.get(f"/api/v1/executions/{exec_id}/files/a%20b.txt")
        assert kept.text == "kept\n"
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]


def test_a_run_that_goes_on_is_followed_and_cancelled(
    accounts: dict[str, Account], busybox_reference: str
) -> None:
    with accounts["carol"].browser() as browser:
        exec_id = submit(browser, busybox_reference, "echo begun; sleep 60")
        page = browser.get(f"/runs/{exec_id}/").text
        assert f'data-follow="/api/v1/executions/{exec_id}/events/"' in page
        change = {"run": exec_id, "change": "cancel"}
        asked = browser.post("/runs/change", data=change)
        assert "Cancel: 1 run?" in asked.text
        done = browser.post("/runs/change", data={**change, "sure": "yes"})
        assert (done.status_code, done.headers["Location"]) == (302, f"/runs/{exec_id}/")
        ended(browser, exec_id)
        assert "cancelled" in browser.get(f"/runs/{exec_id}/").text


def test_a_run_is_repeated(accounts: dict[str, Account], busybox_reference: str) -> None:
    with accounts["carol"].browser() as browser:
        exec_id = submit(browser, busybox_reference, "true")
        ended(browser, exec_id)
        form = {"run": exec_id, "change": "rerun", "sure": "yes"}
        location = browser.post("/runs/change", data=form).headers["Location"]
        assert location not in {"/runs/", f"/runs/{exec_id}/"}
        assert f"/runs/{exec_id}/" in browser.get(location).text


def test_the_list_is_exported_whole_and_harmless(
    stack: Stack, accounts: dict[str, Account], busybox_reference: str
) -> None:
    job = str(uuid.uuid4())
    with accounts["dave"].browser() as browser:
        exec_id = submit(browser, busybox_reference, "true", labels={"job": job})
        ended(browser, exec_id)
        # More than one page of an export.
        sql = """
            INSERT INTO executions_execution (exec_id, owner_id, created_at, image, cmd, env, cwd,
                files, network, persist, labels, priority, callback_url, cpu_cores, memory_mb,
                pids_limit, wall_clock_secs, nofile, status, outcome, error, error_code,
                image_digest, runsc_version, platform, attempts, worker, warm, left_out)
            SELECT 'boxer-' || left(md5(%s || n), 20), owner_id, created_at, '=cmd()', cmd, env,
                cwd, files, network, persist, labels, priority, callback_url, cpu_cores, memory_mb,
                pids_limit, wall_clock_secs, nofile, status, outcome, error, error_code,
                image_digest, runsc_version, platform, attempts, worker, warm, left_out
            FROM executions_execution, generate_series(1, 450) n WHERE exec_id = %s
            RETURNING exec_id
        """
        copies = {row["exec_id"] for row in query(stack, sql, job, exec_id)}
        found = browser.get("/runs/export.csv", params={"label": f"job={job}"})
        rows = list(csv.DictReader(io.StringIO(found.text)))
        assert {row["exec_id"] for row in rows} == copies | {exec_id}
        assert {row["image"] for row in rows} == {"'=cmd()", busybox_reference}
        found = browser.get("/runs/export.jsonl", params={"label": f"job={job}"})
        lines = [json.loads(line) for line in found.text.splitlines()]
        assert len(lines) == 451
        assert {line["image"] for line in lines} == {"=cmd()", busybox_reference}
        refused = browser.get("/runs/export.csv", params={"status": "x"})
        assert refused.status_code == 400
    query(stack, "DELETE FROM executions_execution WHERE exec_id = ANY(%s) RETURNING 1", [*copies])


def test_a_run_is_started_by_the_form(accounts: dict[str, Account], busybox_reference: str) -> None:
    with accounts["carol"].browser() as browser:
        assert browser.get("/runs/new").status_code == 200
        form = {
            "image": busybox_reference,
            "command": "sh -c",
            "script": 'read line\r\necho "$line $NAME"',
            "stdin": "hello\r\n",
            "env": "NAME=world\r\n",
            "labels": "from=form",
            "memory_mb": "64",
        }
        started = browser.post("/runs/new", data=form)
        assert started.status_code == 302, started.text
        exec_id = started.headers["Location"].split("/")[2]
        ended(browser, exec_id)
        assert "hello world" in browser.get(f"/runs/{exec_id}/").text
        told = browser.get(f"/api/v1/executions/{exec_id}/").json()
        assert (told["labels"], told["limits"]["memory_mb"]) == ({"from": "form"}, 64)
        assert exec_id in browser.get("/").text
