"""Whose turn it is: start-time fair queuing among the users whose runs wait.

Goyal, Vin, Cheng: "Start-time Fair Queueing" (SIGCOMM 1996). Each run begins, in virtual time, when
its user's last one ended or now, whichever is later, and takes 1/weight; the earliest is next. Now
is when the run that was served last began, so whoever comes back has saved up nothing. What
isn't a run comes before all runs. A user who runs as many at a time as they may is passed over.
"""

TURNS_LOCK = 0x71756F74
"""Advisory lock: two who take at once could exceed the number of runs at a time."""

_SAID = """
    coalesce(own.{0}, (SELECT max(shared.{0}) FROM quotas_quota shared
        JOIN auth_user_groups member ON member.group_id = shared.group_id
        WHERE member.user_id = asking.owner_id), common.{0})
"""

TAKE = f"""
    WITH unfinished AS MATERIALIZED (
        SELECT message_id, owner_id, priority, status FROM executions_execution
        WHERE status IN ('queued', 'pulling', 'running')
    ), message AS MATERIALIZED (
        -- Not joined: without statistics that would be a loop in a loop.
        SELECT id, max(owner_id) AS owner_id, max(priority) AS priority, bool_or(hidden) AS hidden
        FROM (
            SELECT id, NULL::int AS owner_id, NULL::smallint AS priority, lock > now() AS hidden
            FROM django_q_ormq WHERE key = %(key)s
            UNION ALL
            SELECT message_id, owner_id, priority, NULL FROM unfinished WHERE status = 'queued'
        ) AS either
        GROUP BY id HAVING count(hidden) > 0
    ), busy AS MATERIALIZED (
        SELECT owner_id, count(*) AS runs FROM (
            SELECT owner_id FROM unfinished WHERE status <> 'queued'
            UNION ALL
            SELECT owner_id FROM message WHERE hidden  -- on their way to a worker
        ) AS either
        GROUP BY owner_id
    ), asking AS MATERIALIZED (
        SELECT DISTINCT owner_id FROM message WHERE owner_id IS NOT NULL AND NOT hidden
    ), said AS MATERIALIZED (
        SELECT asking.owner_id, coalesce(busy.runs, 0) AS runs,
            greatest(coalesce(turn.ended, 0), clock.began) AS begins,
            coalesce({_SAID.format("weight")}, 1) AS weight,
            {_SAID.format("runs_at_a_time")} AS bound
        FROM asking
        LEFT JOIN busy ON busy.owner_id = asking.owner_id
        LEFT JOIN quotas_quota own ON own.user_id = asking.owner_id
        LEFT JOIN quotas_quota common ON common.everybody
        LEFT JOIN quotas_turn turn ON turn.user_id = asking.owner_id
        CROSS JOIN (SELECT coalesce(max(began), 0) AS began FROM quotas_turn) clock
    ), candidate AS MATERIALIZED (
        SELECT message.id, said.owner_id, said.begins, said.weight, message.priority
        FROM message LEFT JOIN said ON said.owner_id = message.owner_id
        WHERE NOT message.hidden AND (message.owner_id IS NULL OR said.bound IS NULL
            OR said.bound > said.runs)
    ), chosen AS MATERIALIZED (
        SELECT queued.id, candidate.owner_id, candidate.begins, candidate.weight
        FROM django_q_ormq queued JOIN candidate ON candidate.id = queued.id
        WHERE queued.lock <= now()
        ORDER BY candidate.begins NULLS FIRST, candidate.priority DESC, queued.id
        LIMIT 1 FOR UPDATE OF queued SKIP LOCKED
    ), served AS (
        INSERT INTO quotas_turn (user_id, began, ended)
        SELECT owner_id, begins, begins + 1.0 / weight FROM chosen WHERE owner_id IS NOT NULL
        ON CONFLICT (user_id) DO UPDATE SET
            began = greatest(quotas_turn.began, excluded.began),
            ended = greatest(quotas_turn.ended, excluded.ended)
    )
    UPDATE django_q_ormq SET lock = now() + make_interval(secs => %(lease)s)
    WHERE id = (SELECT id FROM chosen)
    RETURNING id, payload
"""  # noqa: S608 (names of our own)
