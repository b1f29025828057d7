#!/bin/sh
# Writes the three .env files of this overlay (git ignores them) with a new random password. Existing
# files stay, since the database keeps the password that it was created with.
set -eu
cd "$(dirname "$0")"
if [ -e postgres.env ]; then
  echo "postgres.env is there already; delete it, and the database's claim, for a new password" >&2
  exit 0
fi
umask 077
password=$(od -An -N18 -tx1 /dev/urandom | tr -d ' \n')
echo "password=$password" > postgres.env
cat > mlflow-server.env <<END
backend=postgresql://isoflop:$password@postgres:5432/mlflow
artifacts=/artifacts
END
echo "uri=postgresql://isoflop:$password@postgres:5432/optuna" > isoflop-optuna.env
