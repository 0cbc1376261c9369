#!/bin/sh
# Unpacks the .rpm $2 into the empty folder $1 and starts what is in it: check, serve, one lookup.
set -eux
cd "$1"
rpm -qp --scripts "$2" | grep -q systemd-sysusers
rpm -qpc "$2" | grep -qx /etc/cmiot-proxy/cmiot-proxy.toml
rpm2cpio "$2" | cpio --quiet -idm
mkdir data
proxy=$PWD/usr/bin/cmiot-proxy
config=etc/cmiot-proxy/cmiot-proxy.toml
printed() {
    for _ in $(seq 600); do
        if grep -q "$1" "$2"; then return; fi
        sleep 0.1
    done
    cat "$2"
    exit 1
}
"$proxy" simulate --listen 127.0.0.1:0 --account 100001:0001000000009:carrier >carrier.out &
carrier=$!
trap 'kill -INT "$carrier"; kill "$server" || true' EXIT
server=
printed '^simulated carrier ' carrier.out
sed -i "s|^#base_url = .*|base_url = \"$(sed -n 's/^simulated carrier //p' carrier.out)\"|
    s|^dir = .*|dir = \"$PWD/data\"|; s|^#listen = \"127.0.0.1:80.*|listen = \"127.0.0.1:0\"|" "$config"
cat >>"$config" <<END
[[account]]
name = "fleet"
appid = "100001"
ebid = "0001000000009"
password_env = "ACCOUNT_PASSWORD"
END
export ACCOUNT_PASSWORD=carrier
"$proxy" check --config "$config" >/dev/null
"$proxy" serve --config "$config" >serve.out 2>serve.log &
server=$!
printed '^admin ' serve.out
"$proxy" lookup 14765004176 --config "$config" --url "$(sed -n 's/^gateway //p' serve.out)" | grep '"STATUS":"00"'
kill "$server"
wait "$server"
trap 'kill -INT "$carrier"' EXIT
