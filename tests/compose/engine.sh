#!/usr/bin/env bash
# A Docker engine of its own in a network namespace without uplink, and images for docker-compose.yml where no image
# registry can be reached: ours from images/Dockerfile on a base of Debian's packages, PostgreSQL and MinIO as real
# servers behind the names of their own images. Root, Go, Debian's packages; about ten minutes of two cores the first time.
# usage: engine.sh build|up|down FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); root=$(cd "$here/../.." && pwd); action=$1; folder=$2
tools=${EDGEWRIGHT_TEST_TOOLS:-$HOME/.cache/edgewright/tools}; space=edgewright-engine; programs=$folder/root
# as docker-compose.yml names them
base=docker.io/library/python:3.11.14-slim-bookworm
postgres=$(sed -n 's/.*image: \(.*\/postgres:.*\)/\1/p' "$root/docker-compose.yml")
minio=$(sed -n 's/.*image: \(.*\/minio:.*\)/\1/p' "$root/docker-compose.yml")
caddy=$(sed -n 's/.*image: \(.*\/caddy:.*\)/\1/p' "$root/docker-compose.yml")
export DOCKER_HOST=unix://$folder/run/docker.sock DOCKER_BUILDKIT=1
docker() { "$programs/usr/bin/docker" "$@"; }

fetch() {
  [ -x "$folder/minio" ] && [ -f "$folder/base.tar" ] && return 0
  mkdir -p "$folder/deb" "$programs"
  cd "$folder/deb"
  apt-get download -q containerd runc docker.io iptables libip4tc2 libip6tc2 debootstrap >/dev/null
  for package in *.deb; do dpkg -x "$package" "$programs"; done
  DEBOOTSTRAP_DIR=$programs/usr/share/debootstrap nice sh "$programs/usr/sbin/debootstrap" --variant=minbase \
    --include=python3,python3-venv,python3-pip,ca-certificates,wget bookworm "$folder/base" http://deb.debian.org/debian
  ln -sf python3 "$folder/base/usr/bin/python"
  rm -rf "$folder"/base/usr/lib/python3.11/EXTERNALLY-MANAGED "$folder"/base/var/lib/apt/lists/*
  cp /etc/ssl/certs/ca-certificates.crt "$folder/base/etc/ssl/certs/"  # what this machine trusts
  printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > "$folder/base/etc/pip.conf"
  export PATH=$PATH:/usr/local/go/bin
  GOFLAGS=-mod=mod CGO_ENABLED=0 GOTOOLCHAIN=local GOBIN=$folder nice -n 10 go install -trimpath -ldflags "-s -w" \
    "github.com/minio/minio@v0.0.0-20250907161309-07c3a429bfed"
  tar -C "$folder/base" -cf "$folder/base.tar.part" . && mv "$folder/base.tar.part" "$folder/base.tar"
}

engine() {  # arguments: what runs dockerd, and its further settings
  local settings=$1; shift
  mkdir -p "$folder/run" "$folder/bin"
  for name in iptables ip6tables iptables-save; do ln -sf "$programs/usr/sbin/xtables-legacy-multi" "$folder/bin/$name"; done
  cat > "$folder/daemon.json" <<JSON
{"data-root": "$folder/data", "exec-root": "$folder/run/exec", "pidfile": "$folder/run/docker.pid",
 "hosts": ["$DOCKER_HOST"], "default-ulimits": {"nofile": {"Name": "nofile", "Hard": 20000, "Soft": 20000}}, $settings}
JSON
  PATH=$folder/bin:$programs/usr/bin:$programs/usr/sbin:$PATH LD_LIBRARY_PATH=$programs/usr/lib/x86_64-linux-gnu \
    XTABLES_LIBDIR=$programs/usr/lib/x86_64-linux-gnu/xtables \
    setsid "$@" "$programs/usr/sbin/dockerd" --config-file "$folder/daemon.json" > "$folder/engine.log" 2>&1 < /dev/null &
  for _ in $(seq 60); do docker version > /dev/null 2>&1 && return 0; sleep 0.5; done
  tail -5 "$folder/engine.log" >&2
  return 1
}

down() {
  local pid; pid=$(cat "$folder/run/docker.pid" 2>/dev/null) || return 0
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  ip netns del "$space" 2>/dev/null || true
}

build() {
  fetch
  down
  engine '"bridge": "none", "iptables": false' env  # it reaches the packages by this machine's own network
  trap down EXIT
  docker image inspect "$base" > /dev/null 2>&1 || docker import "$folder/base.tar" "$base" > /dev/null
  docker build -q --network host -t "$postgres" "$here/postgres"
  rm -rf "$folder/context"; cp -r "$here/minio" "$folder/context"; cp "$folder/minio" "$folder/context"
  docker build -q -t "$minio" "$folder/context"
  rm -rf "$folder/context"; cp -r "$here/caddy" "$folder/context"; cp -L "$tools/caddy" "$folder/context"
  docker build -q -t "$caddy" "$folder/context"
  for image in ${IMAGES:-mlflow step-cpu serving notebook airflow airflow-spark spark}; do
    docker build -q --network host -f "$root/images/Dockerfile" --target "$image" -t "edgewright/$image:0.1.0" "$root"
  done
  docker image prune -f > /dev/null
}

up() {
  down
  ip netns add "$space"
  nsenter --net="/run/netns/$space" sh -c "ip link set lo up; ip link add node0 type bridge
    ip link add port0 type veth peer name port1; ip link set port0 master node0 up; ip link set port1 up
    ip addr add 198.51.100.1/24 dev node0; ip link set node0 up; ip route add default dev node0"
  engine '"bip": "203.0.113.1/26", "default-address-pools": [{"base": "203.0.113.64/26", "size": 27}]' \
    nsenter --net="/run/netns/$space"
  echo "DOCKER_HOST=$DOCKER_HOST"
}
"$action"
