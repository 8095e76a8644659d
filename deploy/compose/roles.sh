#!/bin/sh
# Makes the roles and the database, by config/roles.sql. Postgres's image runs it once, on an empty volume; after a
# change of roles.sql or of a role's password:  docker compose exec postgres /docker-entrypoint-initdb.d/roles.sh
set -eu

secret() {
    cat "/run/secrets/$1"
}

PGPASSWORD=$(secret postgres_password)
LOCKBOX_OWNER_PASSWORD=$(secret lockbox_owner_password)
LOCKBOX_API_PASSWORD=$(secret lockbox_api_password)
LOCKBOX_WORKER_PASSWORD=$(secret lockbox_worker_password)
LOCKBOX_NOTIFICATIONS_PASSWORD=$(secret lockbox_notifications_password)
LOCKBOX_CONNECTORS_PASSWORD=$(secret lockbox_connectors_password)
export PGPASSWORD LOCKBOX_OWNER_PASSWORD LOCKBOX_API_PASSWORD LOCKBOX_WORKER_PASSWORD LOCKBOX_NOTIFICATIONS_PASSWORD \
    LOCKBOX_CONNECTORS_PASSWORD

psql --no-psqlrc --quiet --username=postgres --dbname=postgres --file=/etc/lockbox/roles.sql
