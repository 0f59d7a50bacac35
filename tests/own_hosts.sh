#!/usr/bin/env bash
# A cluster of one's own hosts by real ssh: up, status, a search as a job, its run fetched, down.
#
#   sudo tests/own_hosts.sh PYTHON    # that has dfsc-tune with the extra `cluster`; minutes
#
# Two hosts and the machine that launches are network namespaces, each host with processes, a home and
# an sshd of its own, so nothing else on this machine is touched. Needs root, sshd, ssh and rsync.
set -euo pipefail

base=${BASE:-$(mktemp -d)}
here=$(cd "$(dirname "$0")/.." && pwd)

as_host() {
  # Within its namespaces: mounts, a home for root, and sshd.
  mount --make-rprivate /
  mount -t proc proc /proc
  mkdir -p "$base/$1/home/.ssh" "$base/$1/tmp"
  mount --bind "$base/$1" /mnt
  cp "$base/key.pub" /mnt/home/.ssh/authorized_keys
  chmod 700 /mnt/home/.ssh
  echo "export PATH=$(dirname "$python"):\$PATH PYTHONPATH=$here" > /mnt/home/.bashrc
  echo '. ~/.bashrc' > /mnt/home/.bash_profile
  sed 's#^root:.*#root:x:0:0:root:/mnt/home:/bin/bash#' /etc/passwd > /mnt/passwd
  mount --bind /mnt/passwd /etc/passwd
  chmod 1777 /mnt/tmp
  mount --bind /mnt/tmp /tmp
  hostname "$1"
  ip link set lo up
  mkdir -p /run/sshd
  ssh-keygen -q -t ed25519 -N '' -f /mnt/hostkey
  exec /usr/sbin/sshd -D -h /mnt/hostkey -o PermitRootLogin=yes -o StrictModes=no -o UsePAM=no \
    -o PidFile=/mnt/sshd.pid
}

launch() {
  # In the launching machine's namespace: what a user types.
  export HOME=$base/home PYTHONPATH=$here
  cd "$HOME"
  tune="$python -m dfsc_tune"
  $tune cluster render on_premise --hosts 10.77.0.2,10.77.0.3 --user root
  # The hosts share this machine's packages; only what would install them is left out.
  "$python" - "$base/key" << 'END'
import sys

import ray
import yaml

tree = yaml.safe_load(open("cluster.yaml"))
tree["setup_commands"] = [f"echo ray=={ray.__version__}"]
tree["auth"]["ssh_private_key"] = sys.argv[1]
del tree["file_mounts"]["~/dfsc_tune_source"]
yaml.safe_dump(tree, open("cluster.yaml", "w"))
END
  # Each run's hosts have keys of their own; those of the run before are not these hosts'.
  for host in 10.77.0.2 10.77.0.3; do ssh-keygen -R "$host" > keys.log 2>&1 || true; done
  $tune cluster up cluster.yaml 2> up.log
  sleep 30
  $tune cluster status cluster.yaml 2> status.log
  $tune data make "$shared/data" --category juice_bottle --height 64 --train 6 --validation 3 \
    --test-good 8 --logical 24 --structural 24
  cat > space.yaml << 'END'
fixed: {model: {network: tiny, image_size: 128, teacher: random}}
parameters: {margin: {type: float, low: 0.0, high: 2.0}}
budget: {num_trials: 8, num_steps: 240, report_interval: 40, grace_period: 40}
END
  $tune submit -- search --data "$shared/data" --category juice_bottle --space space.yaml \
    --results "$shared/runs" --name x | grep -E "complete|error"
  $tune job list
  $tune job fetch "$($tune job list | cut -d' ' -f1)" 2> fetch.log
  "$python" -c "from dfsc_tune.results import load; t = load('results/x').trials
print(t.groupby('node')['state'].value_counts())"
  $tune cluster down cluster.yaml 2> down.log || { cat down.log; return 1; }
}

if [ "${1:-}" = --host ]; then
  python=$3 && as_host "$2"
elif [ "${1:-}" = --launch ]; then
  python=$2 && launch
else
  python=$1
  export BASE=$base shared=/var/tmp/$(basename "$base")
  hosts=()
  end() {
    for pid in "${hosts[@]}"; do kill -9 "$pid"; done
    for name in head worker laptop; do ip netns del "dfsc-$name"; done
    rm -rf "$shared"
  }
  trap end EXIT
  mkdir -p "$base/home" "$shared"
  ssh-keygen -q -t ed25519 -N '' -f "$base/key"
  ip netns add dfsc-laptop
  ip -n dfsc-laptop link set lo up
  ip -n dfsc-laptop link add bridge type bridge
  ip -n dfsc-laptop addr add 10.77.0.1/24 dev bridge
  ip -n dfsc-laptop link set bridge up
  number=2
  for name in head worker; do
    ip netns add "dfsc-$name"
    ip -n dfsc-laptop link add "to-$name" type veth peer name eth0 netns "dfsc-$name"
    ip -n dfsc-laptop link set "to-$name" master bridge up
    ip -n "dfsc-$name" addr add "10.77.0.$number/24" dev eth0
    ip -n "dfsc-$name" link set eth0 up
    # By the way out, Ray finds its own address.
    ip -n "dfsc-$name" route add default via 10.77.0.1
    number=$((number + 1))
    ip netns exec "dfsc-$name" unshare --pid --mount --uts --fork --kill-child \
      bash "$here/tests/own_hosts.sh" --host "$name" "$python" &
    hosts+=($!)
  done
  sleep 5
  ip netns exec dfsc-laptop bash "$here/tests/own_hosts.sh" --launch "$python"
fi
