#!/usr/bin/env bash
# Starts OpenStack Swift 2.30.1 with s3api from Debian 12's packages, unpacked in a folder. Usage: start-swift.sh FOLDER SECRET; the key is
# `test:tester`. Prints the endpoint and stays until it is killed. Ports and data are its own; nothing is installed.
set -euo pipefail
work=$1 secret=$2
version=2.30.1-0+deb12u3
mkdir -p "$work"/{debs/partial,root,node/d1,etc,log,cache}
apt-cache madison swift-proxy | grep -qF "$version" || apt-get update -qq >&2
packages=(memcached)
for name in swift-proxy swift-account swift-container swift-object python3-swift; do packages+=("$name=$version"); done
apt-get install -qq -d -y --no-install-recommends -o Debug::NoLocking=1 -o "Dir::Cache::archives=$work/debs" "${packages[@]}" >"$work/log/apt" 2>&1
for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/root"; done
modules=$work/root/usr/lib/python3/dist-packages
sed -i "s#'/etc/swift/swift.conf'#'$work/etc/swift.conf'#" "$modules/swift/common/utils.py"
swift() { LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu PYTHONPATH=$modules exec /usr/bin/python3 "$work/root/usr/bin/swift-$1" "${@:2}"; }
read -r -a port < <(python3 -c 'import random, socket
taken = [socket.socket() for _ in range(5)]
for each in taken: each.bind(("127.0.0.1", random.randrange(10000, 32000)))
print(*(each.getsockname()[1] for each in taken))')
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
printf '%s\n' '[swift-hash]' 'swift_hash_path_suffix = a' 'swift_hash_path_prefix = b' '[storage-policy:0]' 'name = p0' 'default = yes' >"$work/etc/swift.conf"
common() { printf '%s\n' '[DEFAULT]' "user = $(id -un)" "swift_dir = $work/etc" 'bind_ip = 127.0.0.1' 'workers = 0' "bind_port = $1"; }
number=0
for kind in account container object; do
  {
    common "${port[$number]}"
    printf '%s\n' "devices = $work/node" 'mount_check = false' "recon_cache_path = $work/cache" '[pipeline:main]' "pipeline = $kind-server" \
      "[app:$kind-server]" "use = egg:swift#$kind" 'fallocate_reserve = 0'
  } >"$work/etc/$kind.conf"
  cd "$work/etc"
  (swift ring-builder "$kind.builder" create 4 1 0) >>"$work/log/ring"
  (swift ring-builder "$kind.builder" add --region 1 --zone 1 --ip 127.0.0.1 --port "${port[$number]}" --device d1 --weight 1) >>"$work/log/ring"
  (swift ring-builder "$kind.builder" rebalance) >>"$work/log/ring"
  number=$((number + 1))
done
{
  common "${port[3]}"
  printf '%s\n' '[pipeline:main]' 'pipeline = catch_errors gatekeeper cache listing_formats s3api tempauth bulk copy dlo slo symlink proxy-server' \
    '[app:proxy-server]' 'use = egg:swift#proxy' 'account_autocreate = true' '[filter:tempauth]' 'use = egg:swift#tempauth' \
    "user_test_tester = $secret .admin" '[filter:cache]' 'use = egg:swift#memcache' "memcache_servers = 127.0.0.1:${port[4]}"
  for filter in s3api copy dlo slo symlink bulk catch_errors gatekeeper listing_formats; do printf '[filter:%s]\nuse = egg:swift#%s\n' "$filter" "$filter"; done
} >"$work/etc/proxy.conf"
"$work/root/usr/bin/memcached" -u "$(id -un)" -l 127.0.0.1 -p "${port[4]}" -m 64 >"$work/log/memcached" 2>&1 &
for kind in account container object proxy; do
  (swift "$kind-server" "$work/etc/$kind.conf") >"$work/log/$kind" 2>&1 &
done
echo "http://127.0.0.1:${port[3]}"
wait
