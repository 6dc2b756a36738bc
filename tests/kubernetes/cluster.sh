#!/usr/bin/env bash
# A real single-node Kubernetes in a network namespace of its own: no uplink, nothing reachable from outside.
# usage: cluster.sh up|down FOLDER    (FOLDER: what build.sh made; state below FOLDER/state)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); action=$1; folder=$2
state=$folder/state; space=edgewright-cluster; node=198.51.100.1
within() { nsenter --net="/run/netns/$space" "$@"; }

down() {
  [ -d "$state" ] || return 0
  for name in kubelet dns scheduler controller-manager apiserver; do stop "$name"; done
  if [ -S "$state/containerd.sock" ]; then
    ctr="$folder/root/usr/bin/ctr -a $state/containerd.sock -n k8s.io"
    for task in $($ctr tasks ls -q 2>/dev/null); do $ctr tasks kill -s KILL "$task" 2>/dev/null || true; done
    sleep 1
    for task in $($ctr tasks ls -q 2>/dev/null); do $ctr tasks rm -f "$task" >/dev/null 2>&1 || true; done
  fi
  stop containerd; stop etcd
  for shim in $(pgrep -f -- "-address $state/containerd.sock" || true); do kill -9 "$shim" 2>/dev/null || true; done
  grep -o " $state/[^ ]* " /proc/mounts | sort -r | xargs -r -n1 umount -l 2>/dev/null || true
  ip netns del "$space" 2>/dev/null || true
  rm -rf "$state"
}
stop() {
  local pid; pid=$(cat "$state/$1.pid" 2>/dev/null) || return 0
  kill "$pid" 2>/dev/null || true
  for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.1; done
  kill -9 "$pid" 2>/dev/null || true
}
start() {
  local name=$1; shift
  nsenter --net="/run/netns/$space" setsid "$@" >"$state/$name.log" 2>&1 </dev/null &
  echo $! >"$state/$name.pid"
}
certificate() {  # name, subject, further extensions
  openssl req -newkey rsa:2048 -nodes -keyout "$1.key" -subj "$2" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 7 -out "$1.crt" \
    -extfile <(printf 'extendedKeyUsage=clientAuth,serverAuth\n%s' "${3:-}") 2>/dev/null
}

up() {
  down
  mkdir -p "$state"/pki "$state"/cni; chmod 700 "$state"
  ip netns add "$space"
  within sh -c "ip link set lo up; ip link add node0 type bridge; ip link add port0 type veth peer name port1
    ip link set port0 master node0 up; ip link set port1 up; ip addr add $node/24 dev node0; ip link set node0 up; ip route add default dev node0"
  cd "$state/pki"
  openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -subj /CN=ca -days 7 -out ca.crt 2>/dev/null
  certificate server /CN=kube-apiserver "subjectAltName=IP:$node,IP:127.0.0.1,IP:10.96.0.1,DNS:kubernetes.default.svc"
  certificate admin /O=system:masters/CN=admin
  openssl genrsa -out sa.key 2048 2>/dev/null
  python3 "$here/files.py" "$folder" "$state" "$node"
  export PATH="$folder/bin:$folder/root/usr/bin:$folder/root/usr/sbin:$PATH" LD_LIBRARY_PATH="$folder/root/usr/lib/x86_64-linux-gnu"
  start etcd etcd --data-dir "$state/etcd" --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380 --unsafe-no-fsync
  start apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --service-cluster-ip-range 10.96.0.0/16 \
    --advertise-address "$node" --tls-cert-file server.crt --tls-private-key-file server.key --client-ca-file ca.crt \
    --service-account-issuer https://kubernetes.default.svc --service-account-key-file sa.key \
    --service-account-signing-key-file sa.key --authorization-mode RBAC --allow-privileged \
    --kubelet-client-certificate admin.crt --kubelet-client-key admin.key \
    --kubelet-preferred-address-types InternalIP --endpoint-reconciler-type none
  start containerd containerd --config "$state/containerd.toml"
  start controller-manager kube-controller-manager --kubeconfig "$state/kubeconfig" --leader-elect=false \
    --service-account-private-key-file sa.key --root-ca-file ca.crt
  start scheduler kube-scheduler --kubeconfig "$state/kubeconfig" --leader-elect=false
  start dns coredns -conf "$state/Corefile"
  start kubelet kubelet --config "$state/kubelet.yaml" --kubeconfig "$state/kubeconfig" --root-dir "$state/kubelet" \
    --hostname-override node --node-ip "$node"
  for _ in $(seq 120); do
    [ -S "$state/containerd.sock" ] && within kubectl --kubeconfig "$state/kubeconfig" get node node 2>/dev/null | grep -q ' Ready' && break
    sleep 1
  done
  within kubectl --kubeconfig "$state/kubeconfig" get nodes
  for image in "$state"/*.tar; do ctr -a "$state/containerd.sock" -n k8s.io images import "$image"; done
}
"$action"
