#!/usr/bin/env bash
# Starts Ceph RGW 16.2.15 from Debian 12's packages, unpacked in a folder: one monitor, one OSD in memory, one gateway. Usage: start-ceph.sh FOLDER
# KEY SECRET; prints the endpoint and stays until it is killed. Ports, keys and data are its own; nothing is installed.
set -euo pipefail
work=$1 key=$2 secret=$3
version=16.2.15+ds-0+deb12u2
mkdir -p "$work"/{debs/partial,root,mon,osd,run,log}
apt-cache madison radosgw | grep -qF "$version" || apt-get update -qq >&2
packages=()
for name in radosgw ceph-mon ceph-osd ceph-common ceph-base; do packages+=("$name=$version"); done
apt-get install -qq -d -y --no-install-recommends -o Debug::NoLocking=1 -o "Dir::Cache::archives=$work/debs" "${packages[@]}" >"$work/log/apt" 2>&1
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
lib=$work/root/usr/lib/x86_64-linux-gnu bin=$work/root/usr/bin
export LD_LIBRARY_PATH=$lib:$lib/ceph:$work/root/usr/lib:$work/root/lib/x86_64-linux-gnu CEPH_CONF=$work/ceph.conf
read -r mon port < <(python3 -c 'import random, socket
taken = [socket.socket() for _ in "12"]
for each in taken: each.bind(("127.0.0.1", random.randrange(10000, 32000)))
print(*(each.getsockname()[1] for each in taken))')
fsid=$(cat /proc/sys/kernel/random/uuid) osd=$(cat /proc/sys/kernel/random/uuid)
setting() { printf '%s = %s\n' "$1" "$2"; }
{
  echo '[global]'
  setting fsid "$fsid"
  setting 'mon host' "v2:127.0.0.1:$mon"
  for each in 'auth cluster required' 'auth service required' 'auth client required'; do setting "$each" none; done
  for each in 'ms mon client mode' 'ms cluster mode' 'ms service mode' 'ms client mode'; do setting "$each" crc; done
  setting 'ms bind ipv6' false
  setting 'public addr' 127.0.0.1
  setting 'cluster addr' 127.0.0.1
  setting 'osd pool default size' 1
  setting 'osd pool default min size' 1
  setting 'osd pool default pg num' 4
  setting 'osd pool default pg autoscale mode' off
  setting 'osd crush chooseleaf type' 0
  setting 'mon max pg per osd' 1000
  setting 'log file' "$work/log/\$name.log"
  setting 'admin socket' "$work/run/\$name.asok"
  setting 'run dir' "$work/run"
  setting keyring "$work/keyring"
  setting 'plugin dir' "$lib/ceph"
  setting 'erasure code dir' "$lib/ceph/erasure-code"
  setting 'osd class dir' "$lib/rados-classes"
  setting 'mon data' "$work/mon"
  setting 'mon data avail crit' 1
  setting 'osd data' "$work/osd"
  setting 'osd objectstore' memstore
  setting 'memstore device bytes' 4294967296
  setting 'rgw frontends' "beast endpoint=127.0.0.1:$port"
  setting 'rgw override bucket index max shards' 1
} >"$CEPH_CONF"
ceph() { PYTHONPATH=$work/root/usr/lib/python3/dist-packages timeout 60 /usr/bin/python3 "$bin/ceph" "$@"; }
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
"$bin/ceph-authtool" "$work/keyring" -C --gen-key -n mon. --cap mon 'allow *' >/dev/null
"$bin/ceph-authtool" "$work/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
"$bin/ceph-authtool" "$work/keyring" --gen-key -n client.rgw --cap mon 'allow *' --cap osd 'allow *'
"$bin/monmaptool" --create --addv a "[v2:127.0.0.1:$mon]" --fsid "$fsid" "$work/monmap" >/dev/null
"$bin/ceph-mon" --mkfs -i a --monmap "$work/monmap" --keyring "$work/keyring" 2>"$work/log/mkfs"
"$bin/ceph-mon" -i a -f >"$work/log/mon" 2>&1 &
ceph osd new "$osd" >/dev/null
"$bin/ceph-osd" -i 0 --mkfs --osd-uuid "$osd" >"$work/log/osd" 2>&1
"$bin/ceph-osd" -i 0 -f >>"$work/log/osd" 2>&1 &
ceph osd crush add osd.0 1.0 root=default host=one >/dev/null 2>&1
timeout 120 "$bin/radosgw-admin" -n client.rgw user create --uid=u --display-name=u "--access-key=$key" "--secret=$secret" >"$work/log/user" 2>&1
"$bin/radosgw" -n client.rgw -f >"$work/log/rgw" 2>&1 &
echo "http://127.0.0.1:$port"
wait
