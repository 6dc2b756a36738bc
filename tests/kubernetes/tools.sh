#!/usr/bin/env bash
# Make the real Helm, Docker Compose, Caddy, OCI registry (CNCF distribution) and a reader of Dockerfiles by BuildKit's
# parser from their Go modules, once.
# A few minutes of two cores. usage: tools.sh FOLDER
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); folder=$1; helm=3.22.0; compose=2.40.3; buildkit=0.34.2; registry=3.0.0; caddy=2.10.2; kubernetes=1.34
export GOFLAGS=-mod=mod CGO_ENABLED=0 GOTOOLCHAIN=local
export PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null || { echo "no Go compiler here" >&2; exit 3; }
mkdir -p "$folder"

build() {  # name, package, version, linker flags
  [ -x "$folder/$1-$3" ] && return 0
  local place; place=$(mktemp -d "$folder/.build-$1-XXXX")
  (
    cd "$place"
    printf 'module build\ngo 1.24\n' > go.mod
    nice -n 10 go get "$2@v$3"
    nice -n 10 go build -trimpath -ldflags "-s -w $4" -o "$place/$1" "$2"
  )
  mv "$place/$1" "$folder/$1-$3"
  chmod -R u+w "$place"; rm -rf "$place"
}

stamp="-X helm.sh/helm/v3/internal/version.version=v$helm"
for package in pkg/chartutil pkg/lint/rules; do  # which Kubernetes it takes where it asks none
  stamp="$stamp -X helm.sh/helm/v3/$package.k8sVersionMajor=${kubernetes%.*} -X helm.sh/helm/v3/$package.k8sVersionMinor=${kubernetes#*.}"
done
build helm helm.sh/helm/v3/cmd/helm "$helm" "$stamp"
build docker-compose github.com/docker/compose/v2/cmd "$compose" \
  "-X github.com/docker/compose/v2/internal.Version=v$compose"
build caddy github.com/caddyserver/caddy/v2/cmd/caddy "$caddy" ""
build registry github.com/distribution/distribution/v3/cmd/registry "$registry" ""
if [ ! -x "$folder/dockerfile-$buildkit" ]; then
  place=$(mktemp -d "$folder/.build-dockerfile-XXXX")
  cp "$here/dockerfile/main.go" "$place"
  (
    cd "$place"
    printf 'module build\ngo 1.24\n' > go.mod
    nice -n 10 go get "github.com/moby/buildkit/frontend/dockerfile/instructions@v$buildkit"
    nice -n 10 go build -trimpath -ldflags "-s -w" -o dockerfile .
  )
  mv "$place/dockerfile" "$folder/dockerfile-$buildkit"
  rm -rf "$place"
fi
ln -sf "dockerfile-$buildkit" "$folder/dockerfile"
ln -sf "registry-$registry" "$folder/registry"
ln -sf "caddy-$caddy" "$folder/caddy"
ln -sf "helm-$helm" "$folder/helm"
ln -sf "docker-compose-$compose" "$folder/docker-compose"
