#!/bin/sh
# Starts Valkey with its settings on standard input: the password stands in no command line and in no file of its own.
set -eu

exec valkey-server - <<SETTINGS
requirepass $(cat /run/secrets/redis_password)
bind * -::*
port 6379
dir /data
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
SETTINGS
