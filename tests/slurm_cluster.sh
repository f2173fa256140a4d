#!/usr/bin/env bash
# A SLURM cluster of several nodes on this machine, for tests; as root, with Debian's packages slurmctld, slurmd,
# slurm-client, munge, iproute2 and util-linux. Everything it writes is in FOLDER.
#
#   slurm_cluster.sh start FOLDER NODES CPUS   nodes n1, n2, ... of so many CPUs; returns when they are idle
#   slurm_cluster.sh in FOLDER COMMAND...      runs a command, of SLURM or any other, where the cluster is
#   slurm_cluster.sh stop FOLDER
#
# It has network and mounts of its own: ports are free, and /etc/hosts knows its nodes.
set -euo pipefail
action=$1 folder=$2
shift 2

inside() { SLURM_CONF=$folder/slurm.conf nsenter --target "$(cat "$folder/holder.pid")" --net --mount --wd="$PWD" "$@"; }

configure() {
  local nodes=$1 cpus=$2 number
  cat <<END
ClusterName=tests
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmctldPort=17000
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A credential of a run that is over is refused for as long as it lives, 120 s by default: a job waits when it is queued again.
AuthInfo=socket=$folder/munge/socket,cred_expire=10
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
# No control groups, no accounts: what is there in every container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
KillWait=20
MinJobAge=3600
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=100000,bf_interval=2
END
  for number in $(seq "$nodes"); do
    echo "NodeName=n$number NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=$((17000 + number)) CPUs=$cpus RealMemory=4000"
  done
  echo 'PartitionName=main Nodes=ALL Default=YES State=UP'
}

start() {
  local nodes=$1 cpus=$2 number
  mkdir -p "$folder"/{munge,state}
  chmod 755 "$folder"
  configure "$nodes" "$cpus" >"$folder/slurm.conf"
  { echo "127.0.0.1 localhost $(hostname)"; seq --format='127.0.0.1 n%g' "$nodes"; } >"$folder/hosts"
  # Beside the loopback an address of its own: with that alone the C library looks up no address of a name.
  # shellcheck disable=SC2016  # it is the inner shell's
  unshare --net --mount --propagation private bash -ec '
    mount --bind "$0/hosts" /etc/hosts
    ip link set lo up
    ip link add one type veth peer name other
    ip addr add 10.99.0.1/24 dev one
    ip link set one up
    ip link set other up
    echo $$ >"$0/holder.new"
    mv "$0/holder.new" "$0/holder.pid"
    exec sleep infinity' "$folder" </dev/null >"$folder/holder.log" 2>&1 &
  for _ in $(seq 50); do
    [ ! -s "$folder/holder.pid" ] || break
    sleep 0.1
  done
  head --bytes=128 /dev/urandom >"$folder/munge/key"
  chmod 400 "$folder/munge/key"
  inside munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
    --pid-file="$folder/munge.pid" --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"
  inside slurmctld -c
  for number in $(seq "$nodes"); do inside slurmd -c -N "n$number"; done
  for _ in $(seq 100); do
    if [ "$(inside timeout 2 sinfo --noheader --states=idle --format=%D 2>/dev/null)" = "$nodes" ]; then return; fi
    sleep 0.2
  done
  tail -n 20 "$folder"/*.log >&2
  return 1
}

case $action in
  start) start "$@" ;;
  in) inside "$@" ;;
  stop) for file in "$folder"/slurmd-*.pid "$folder"/{slurmctld,munge,holder}.pid; do
    [ ! -s "$file" ] || kill "$(cat "$file")" || true
  done ;;
  *) sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
