#!/bin/sh
# Installs, configures, starts, upgrades and purges the .deb in a copy-on-write view of this machine's root folder, in
# namespaces of its own: $1 is an empty folder, $2 the package, $3 a later one. Needs root; nothing of the view stays.
set -eu
work=$1
mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/view"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/upper,workdir=$work/work" "$work/view"
mount -t proc proc "$work/view/proc"
mount --rbind /dev "$work/view/dev"
ip link set lo up 2>/dev/null || true
cp "$2" "$work/view/first.deb"
cp "$3" "$work/view/second.deb"
exec chroot "$work/view" /bin/sh -eux -s <<'INSIDE'
config=/etc/cmiot-proxy/cmiot-proxy.toml
as='setpriv --reuid=cmiot-proxy --regid=cmiot-proxy --clear-groups'
proxy() { $as cmiot-proxy "$@"; }
# Waits until this line is in a file.
printed() {
    for _ in $(seq 600); do
        if grep -q "$1" "$2"; then return; fi
        sleep 0.1
    done
    cat "$2"
    exit 1
}
serve() {
    : >/serve.out
    $as cmiot-proxy serve --config "$config" >>/serve.out 2>/serve.log &
    server=$!
    printed '^admin ' /serve.out
}
drain() {
    kill "$server"
    wait "$server"
}

dpkg --install /first.deb
getent passwd cmiot-proxy
[ "$(stat -c %a:%U:%G "$config")" = 640:root:cmiot-proxy ]
[ "$(stat -c %a:%U:%G /var/lib/cmiot-proxy)" = 750:cmiot-proxy:cmiot-proxy ]
for file in /usr/share/man/man1/cmiot-proxy-serve.1.gz /usr/share/bash-completion/completions/cmiot-proxy \
    /usr/share/doc/cmiot-proxy/third-party-notices.txt; do
    [ -s "$file" ]
done
bash -n /usr/share/bash-completion/completions/cmiot-proxy
if proxy check --config "$config" 2>/check.err; then exit 1; fi
grep 'has no account' /check.err

cmiot-proxy simulate --listen 127.0.0.1:0 --account 100001:0001000000009:carrier >/carrier.out &
carrier=$!
printed '^simulated carrier ' /carrier.out
cat >>"$config" <<END
[[account]]
name = "fleet"
appid = "100001"
ebid = "0001000000009"
password_file = "fleet.password"
END
echo carrier >/etc/cmiot-proxy/fleet.password
chown root:cmiot-proxy /etc/cmiot-proxy/fleet.password
chmod 640 /etc/cmiot-proxy/fleet.password
sed -i "s|^#base_url = .*|base_url = \"$(sed -n 's/^simulated carrier //p' /carrier.out)\"|" "$config"
proxy check --config "$config" >/dev/null
serve
proxy lookup 14765004176 --config "$config" | tee /lookup
grep '"STATUS":"00"' /lookup
drain

# The changed configuration and the databases stay: the second lookup is a hit.
dpkg --install /second.deb
[ "$(stat -c %a:%U:%G "$config")" = 640:root:cmiot-proxy ]
grep 'name = "fleet"' "$config"
serve
proxy lookup 14765004176 --config "$config" | tee /lookup
grep '^cache-status: .*hit' /lookup
drain
proxy audit query --format csv --config "$config" | tee /audit
[ "$(grep -c 14765004176 /audit)" = 2 ]
kill -INT "$carrier"

dpkg --purge cmiot-proxy
[ ! -e /usr/bin/cmiot-proxy ]
[ ! -e "$config" ]
# The audit is evidence.
[ -e /var/lib/cmiot-proxy/state.db ]
INSIDE
