"""Triggers that refuse to change or delete what the log has, and the head of its chain."""

from django.db import migrations

TRIGGERS = """
CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only: % of % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER audit_entry_insert BEFORE INSERT ON audit_entry FOR EACH ROW
    WHEN (NEW.seq IS NOT NULL OR NEW.hash IS NOT NULL) EXECUTE FUNCTION audit_refuse();

-- The one change there is: an entry gets its place in the chain, once.
CREATE TRIGGER audit_entry_update BEFORE UPDATE ON audit_entry FOR EACH ROW
    WHEN (
        OLD.seq IS NOT NULL OR NEW.seq IS NULL OR NEW.hash IS NULL
        OR (NEW.id, NEW.at, NEW.user_id, NEW.username, NEW.token, NEW.address, NEW.verb,
            NEW.object_type, NEW.object_id, NEW.owner_id, NEW.details)
        IS DISTINCT FROM
           (OLD.id, OLD.at, OLD.user_id, OLD.username, OLD.token, OLD.address, OLD.verb,
            OLD.object_type, OLD.object_id, OLD.owner_id, OLD.details)
    ) EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_entry_delete BEFORE DELETE ON audit_entry FOR EACH ROW
    EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_entry_truncate BEFORE TRUNCATE ON audit_entry FOR EACH STATEMENT
    EXECUTE FUNCTION audit_refuse();

CREATE TRIGGER audit_head_update BEFORE UPDATE ON audit_head FOR EACH ROW
    WHEN (NEW.id <> OLD.id OR NEW.seq <= OLD.seq) EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_head_delete BEFORE DELETE ON audit_head FOR EACH ROW
    EXECUTE FUNCTION audit_refuse();
CREATE TRIGGER audit_head_truncate BEFORE TRUNCATE ON audit_head FOR EACH STATEMENT
    EXECUTE FUNCTION audit_refuse();

INSERT INTO audit_head (id, seq, hash) VALUES (1, 0, decode(repeat('00', 32), 'hex'));
"""

BACK = """
DROP TRIGGER audit_entry_insert ON audit_entry;
DROP TRIGGER audit_entry_update ON audit_entry;
DROP TRIGGER audit_entry_delete ON audit_entry;
DROP TRIGGER audit_entry_truncate ON audit_entry;
DROP TRIGGER audit_head_update ON audit_head;
DROP TRIGGER audit_head_delete ON audit_head;
DROP TRIGGER audit_head_truncate ON audit_head;
DROP FUNCTION audit_refuse();
DELETE FROM audit_head;
"""


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_initial")]

    operations = [migrations.RunSQL(TRIGGERS, BACK)]
