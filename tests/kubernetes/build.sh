#!/usr/bin/env bash
# Make the programs of a single-node cluster, once: Kubernetes and etcd from Go modules (published staging modules stand
# in for the tree's own folders), containerd and runc from Debian's packages. About ten minutes of two cores.
# usage: build.sh FOLDER
set -euo pipefail
folder=$1; version=1.34.4; minor=${version#1.}
export GOPATH=$folder/go GOFLAGS=-mod=mod CGO_ENABLED=0 GOTOOLCHAIN=local
export PATH=$PATH:/usr/local/go/bin
command -v go >/dev/null || { echo "no Go compiler here" >&2; exit 3; }
mkdir -p "$folder"/{src,bin,deb,root,pause}

if [ ! -x "$folder/bin/etcd" ]; then
  cd "$folder/src"
  GO_MOD=$(go mod download -json "k8s.io/kubernetes@v$version" | python3 -c 'import json,sys; print(json.load(sys.stdin)["GoMod"])')
  python3 - "$GO_MOD" "$version" "$minor" > go.mod <<'PY'
import re, sys
text = open(sys.argv[1]).read(); version, minor = sys.argv[2:]
text = re.sub(r"^module .*", "module cluster", text, flags=re.M)
text = re.sub(r"(k8s\.io/\S+) v0\.0\.0(?=\s)", rf"\1 v0.{minor}", text)
text = re.sub(r"^replace \(.*?^\)", "", text, flags=re.M | re.S)
text = re.sub(r"^godebug (\([^)]*\)|[^\n]*)", "", text, flags=re.M)
print(text + f"\nrequire k8s.io/kubernetes v{version}\n")
PY
  stamp="-X k8s.io/component-base/version.gitVersion=v$version -X k8s.io/component-base/version.gitMajor=1"
  stamp="$stamp -X k8s.io/component-base/version.gitMinor=${minor%%.*}"
  for part in kube-apiserver kube-controller-manager kube-scheduler kubelet; do
    nice -n 10 go build -trimpath -ldflags "-s -w $stamp" -o "$folder/bin/$part" "k8s.io/kubernetes/cmd/$part"
  done
  nice -n 10 go build -trimpath -ldflags "-s -w" -o "$folder/bin/etcd" go.etcd.io/etcd/server/v3
fi
if [ ! -x "$folder/bin/coredns" ]; then
  mkdir -p "$folder/dns"; cd "$folder/dns"
  [ -f go.mod ] || go mod init dns
  go get github.com/coredns/coredns@v1.12.4
  nice -n 10 go build -trimpath -ldflags "-s -w" -o "$folder/bin/coredns" github.com/coredns/coredns
fi
if [ ! -x "$folder/bin/pause" ]; then
  cd "$folder/pause"
  printf 'module pause\ngo 1.21\n' > go.mod
  printf 'package main\nimport ("os"; "os/signal"; "syscall")\nfunc main() { c := make(chan os.Signal, 1); signal.Notify(c, syscall.SIGTERM, syscall.SIGINT); <-c }\n' > main.go
  go build -ldflags "-s -w" -o "$folder/bin/pause" .
fi
if [ ! -x "$folder/root/usr/bin/containerd" ]; then
  cd "$folder/deb"
  apt-get download -q containerd runc containernetworking-plugins docker.io iptables libip4tc2 libip6tc2 >/dev/null
  for package in *.deb; do dpkg -x "$package" "$folder/root"; done
fi
if [ ! -x "$folder/root/bin/busybox" ]; then  # a vendor's image without Python
  cd "$folder/deb"
  apt-get download -q busybox-static >/dev/null
  dpkg -x busybox-static*.deb "$folder/root"
fi
