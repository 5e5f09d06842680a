-- The roles of the services, with no more than they need. The passwords come from the secrets and are shown by
-- no process list.
\set capture_password `cat /run/secrets/capture_password`
\set backup_password `cat /run/secrets/backup_password`
create role wal_capture login replication password :'capture_password';
create role backup login password :'backup_password';
-- `pgark check` looks at the archiver and the slots, too; `basebackup` would do with pg_read_all_settings.
grant pg_monitor to backup;
select current_setting('server_version_num')::int < 150000 as before_15 \gset
\if :before_15
grant execute on function pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean), pg_switch_wal() to backup;
\else
grant execute on function pg_backup_start(text, boolean), pg_backup_stop(boolean), pg_switch_wal() to backup;
\endif
