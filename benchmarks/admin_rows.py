"""Executions by the million, made where they are kept: in PostgreSQL, by one statement each."""

from django.db import connection

SPAN = "400 days"
"""Ago, the oldest; half of them are of the last 100 days, a twentieth of the last day."""

_USERS = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    SELECT 'bench' || n, '!', false, '', '', '', false, true, now() FROM generate_series(0, 199) n
"""
_HOST = """
    INSERT INTO executions_workerhost (id, name, workers, runsc_version, network_lack, started_at,
        seen_at)
    SELECT gen_random_uuid(), 'bench' || n, 4, '1', '', now() - n * interval '1 hour',
        now() - n * interval '1 hour'
    FROM generate_series(0, 99) n
"""
_EXECUTIONS = """
    INSERT INTO executions_execution (exec_id, owner_id, created_at, image, cmd, env, cwd, files,
        network, persist, labels, priority, callback_url, cpu_cores, memory_mb, pids_limit,
        wall_clock_secs, nofile, status, outcome, exit_code, error, error_code, image_digest,
        runsc_version, platform, attempts, host_id, worker, claimed_at, started_at, finished_at,
        queue_ms, pull_ms, start_ms, warm, wall_ms, cpu_ms, max_memory_bytes, left_out)
    SELECT 'boxer-' || left(md5(n::text), 20), owner.id, asked.at,
        'docker.io/library/python:3.' || n %% 9,
        ARRAY['python3', '-c', repeat('print(' || n || ');', 20)], ARRAY['LANG=C.UTF-8'], '/', '{}',
        'none', false, CASE WHEN n %% 20 = 0 THEN jsonb_build_object('course', (n %% 40)::text)
            ELSE '{}' END,
        0, '', 1, 256, 64, 30, 256, state.status, state.outcome,
        CASE WHEN state.outcome = 'exited' THEN n %% 3 END, '', '', 'sha256:' || md5(n::text),
        '1', 'systrap', 1, host.id, '', asked.at, asked.at,
        CASE WHEN state.status <> 'queued' THEN asked.at + interval '1 s' END,
        CASE WHEN state.status <> 'queued' THEN n %% 977 END, n %% 13, n %% 211, n %% 3 = 0,
        n %% 4999, n %% 997, 1000000 + n, '[]'
    FROM generate_series(1, %(rows)s) n
    CROSS JOIN LATERAL (
        SELECT now() - interval '400 days' * ((%(rows)s - n)::float / %(rows)s) ^ 2 AS at
    ) asked
    CROSS JOIN LATERAL (
        SELECT CASE WHEN n > %(rows)s - 300 THEN 'queued' WHEN n %% 200 = 3 THEN 'cancelled'
                ELSE 'finished' END AS status,
            CASE WHEN n > %(rows)s - 300 OR n %% 200 = 3 THEN ''
                WHEN n %% 50000 = 7 THEN 'infra_error' WHEN n %% 1000 = 1 THEN 'output_limit'
                WHEN n %% 100 = 0 THEN 'out_of_memory' WHEN n %% 25 = 0 THEN 'signalled'
                WHEN n %% 10 = 0 THEN 'timed_out' ELSE 'exited' END AS outcome
    ) state
    -- Half of them are one user's; one has a few old ones alone.
    JOIN auth_user owner ON owner.username = 'bench' || CASE
        WHEN n < 6 THEN 199 WHEN n %% 2 = 0 THEN 0 ELSE 1 + n %% 198 END
    CROSS JOIN (SELECT id FROM executions_workerhost ORDER BY name LIMIT 1) host
    ORDER BY n
"""
_OUTPUT = """
    INSERT INTO executions_executionoutput (execution_id, stdout, stderr)
    SELECT id, convert_to(repeat('line ' || id || E'\\n', 10), 'UTF8'), '' FROM executions_execution
    WHERE status = 'finished'
"""


def make(rows: int) -> None:
    """Users, hosts and executions with their output; then what autovacuum would do by itself."""
    with connection.cursor() as cursor:
        # Triggers and foreign keys are for rows that come one by one.
        cursor.execute("SET session_replication_role = replica")
        for statement in (_USERS, _HOST):
            cursor.execute(statement)
        cursor.execute(_EXECUTIONS, {"rows": rows})
        cursor.execute(_OUTPUT)
        cursor.execute("SET session_replication_role = DEFAULT")
        cursor.execute("VACUUM ANALYZE")
