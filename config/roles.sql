-- The roles and the database of Lockbox: run by psql as a superuser, at first set-up and again after any change here.
-- Passwords come from the environment (\getenv), never from a command line: LOCKBOX_OWNER_PASSWORD,
-- LOCKBOX_API_PASSWORD, LOCKBOX_WORKER_PASSWORD, LOCKBOX_NOTIFICATIONS_PASSWORD, LOCKBOX_CONNECTORS_PASSWORD.

\set ON_ERROR_STOP on
\set QUIET on
-- An error must not quote the statement that holds a password.
\set VERBOSITY terse
\set SHOW_CONTEXT never
\pset format unaligned
\pset tuples_only on

-- The statements below hold passwords: keep them out of the server's log and of its statistics.
SET client_min_messages = 'warning';
SET log_statement = 'none';
SET log_duration = off;
SET log_min_duration_statement = -1;
SET log_min_duration_sample = -1;
SET log_transaction_sample_rate = 0;
SET log_min_error_statement = 'panic';
SET track_activities = off;
SET pg_stat_statements.track_utility = off;
SET password_encryption = 'scram-sha-256';

\set owner_password ''
\set api_password ''
\set worker_password ''
\set notifications_password ''
\set connectors_password ''
\getenv owner_password LOCKBOX_OWNER_PASSWORD
\getenv api_password LOCKBOX_API_PASSWORD
\getenv worker_password LOCKBOX_WORKER_PASSWORD
\getenv notifications_password LOCKBOX_NOTIFICATIONS_PASSWORD
\getenv connectors_password LOCKBOX_CONNECTORS_PASSWORD
SELECT '' IN (:'owner_password', :'api_password', :'worker_password', :'notifications_password',
  :'connectors_password') AS password_missing \gset
\if :password_missing
DO $$ BEGIN
  RAISE EXCEPTION 'set LOCKBOX_OWNER_PASSWORD, LOCKBOX_API_PASSWORD, LOCKBOX_WORKER_PASSWORD, LOCKBOX_NOTIFICATIONS_PASSWORD and LOCKBOX_CONNECTORS_PASSWORD';
END $$;
\endif

SELECT format('CREATE ROLE %I', wanted.name)
FROM (VALUES ('lockbox_owner'), ('lockbox_api'), ('lockbox_worker'), ('lockbox_notifications'),
  ('lockbox_connectors')) AS wanted (name)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted.name)
\gexec

-- Only migrations and the owner's commands use this login: no server process has it.
ALTER ROLE lockbox_owner WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION BYPASSRLS
  PASSWORD :'owner_password';
ALTER ROLE lockbox_api WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT
  PASSWORD :'api_password';
ALTER ROLE lockbox_worker WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT
  PASSWORD :'worker_password';
ALTER ROLE lockbox_notifications WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT
  PASSWORD :'notifications_password';
ALTER ROLE lockbox_connectors WITH LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT
  PASSWORD :'connectors_password';

-- Settings for each statement of the servers; each server checks them before it serves. A pooler does not pass on
-- what a client sets for its session, so the login has these settings.
SELECT format('ALTER ROLE %I SET %I TO %L', login.name, bound.name, bound.value)
FROM (VALUES ('lockbox_api'), ('lockbox_worker'), ('lockbox_notifications'),
  ('lockbox_connectors')) AS login (name)
CROSS JOIN (VALUES
  ('lock_timeout', '2s'),
  ('statement_timeout', '10s'),
  ('idle_in_transaction_session_timeout', '15s'),
  ('idle_session_timeout', '0'),
  ('TimeZone', 'UTC'),
  ('synchronous_commit', 'on'),
  ('plan_cache_mode', 'force_generic_plan'),
  ('jit', 'off')
) AS bound (name, value)
\gexec

SELECT 'CREATE DATABASE lockbox OWNER lockbox_owner'
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'lockbox')
\gexec
ALTER DATABASE lockbox OWNER TO lockbox_owner;
REVOKE ALL ON DATABASE lockbox FROM PUBLIC;
GRANT CONNECT ON DATABASE lockbox TO lockbox_owner, lockbox_api, lockbox_worker, lockbox_notifications,
  lockbox_connectors;

\connect lockbox
SET client_min_messages = 'warning';
ALTER SCHEMA public OWNER TO lockbox_owner;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;
