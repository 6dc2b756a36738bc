#!/usr/bin/env bash
# A database of its own at the first start, with the scripts of /docker-entrypoint-initdb.d; then the server.
set -euo pipefail
if [ "$(id -u)" = 0 ]; then
  install -d -o postgres -g postgres -m 0700 "$PGDATA" /var/run/postgresql
  exec setpriv --reuid postgres --regid postgres --init-groups bash "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  initdb --auth-host scram-sha-256 --auth-local trust --username "$POSTGRES_USER" --pwfile <(printf '%s' "$POSTGRES_PASSWORD") > /dev/null
  echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
  pg_ctl -w -o "-c listen_addresses=" start > /dev/null
  createdb --username "$POSTGRES_USER" "$POSTGRES_DB"
  for script in /docker-entrypoint-initdb.d/*.sql; do
    psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" --file "$script"
  done
  pg_ctl -w stop > /dev/null
fi
exec postgres -c listen_addresses='*' "$@"
