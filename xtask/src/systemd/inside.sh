#!/bin/sh
# The steps with the packages $1 and $2, a later one, as a service of the systemd under trial.
set -eu
unit=cmiot-proxy.service
config=/etc/cmiot-proxy/cmiot-proxy.toml
step() { echo "--- $*"; }
show() { systemctl show "$unit" --property="$1" --value; }
fail() {
    echo "FAILED: $*"
    systemctl status --no-pager --lines=20 "$unit" || true
    exit 1
}
# Waits until a property has this value.
becomes() {
    for _ in $(seq 300); do
        if [ "$(show "$1")" = "$2" ]; then return; fi
        sleep 0.2
    done
    fail "$1 is $(show "$1"), not $2"
}
version=$(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')
step "systemd $version: install"
dpkg --install "$1"
[ "$(stat -c %U:%G:%a /etc/cmiot-proxy)" = root:cmiot-proxy:750 ] || fail "the mode of /etc/cmiot-proxy"
[ "$(show ActiveState)" = inactive ] || fail "the service was started before it was configured"

step "a start with a wrong configuration fails"
if systemctl start "$unit"; then fail "it was started"; fi
show StatusText
show StatusText | grep -q 'has no account' || fail "the status does not say why"
systemctl stop "$unit"
systemctl reset-failed "$unit" 2>/dev/null || true

step "a start with a credential"
systemd-run --quiet --unit=carrier cmiot-proxy simulate --listen 127.0.0.1:9000 --account 100001:0001000000009:carrier
echo carrier >/etc/cmiot-proxy/fleet.password
chmod 600 /etc/cmiot-proxy/fleet.password
mkdir -p /etc/systemd/system/$unit.d
printf '[Service]\nLoadCredential=fleet:/etc/cmiot-proxy/fleet.password\nWatchdogSec=3\n' \
    >/etc/systemd/system/$unit.d/credential.conf
systemctl daemon-reload
cat >>"$config" <<END
[[account]]
name = "fleet"
appid = "100001"
ebid = "0001000000009"
password_file = "credential:fleet"
END
sed -i 's|^#base_url = .*|base_url = "http://127.0.0.1:9000"|' "$config"
systemctl start "$unit" || fail "it was not started"
echo "Type=$(show Type) StatusText=$(show StatusText)"
show StatusText | grep -q '^serving: gateway http://127.0.0.1:8080' || fail "the status"

step "a lookup"
# Of the account's own credentials, which the drop-in does not pass to a shell.
CREDENTIALS_DIRECTORY=/cred && mkdir "$CREDENTIALS_DIRECTORY" && export CREDENTIALS_DIRECTORY
install -m 600 /etc/cmiot-proxy/fleet.password /cred/fleet
curl=$(cmiot-proxy sign --appid 100001 --ebid 0001000000009 --msisdn 14765004176 --password-file /cred/fleet \
    --format url --base-url http://127.0.0.1:8080)
perl -MIO::Socket::INET -e '($h, $p) = $ARGV[0] =~ m{http://([^/]*)(/.*)}; $s = IO::Socket::INET->new($h) or die;
    print $s "GET $p HTTP/1.1\r\nHost: $h\r\nConnection: close\r\n\r\n"; print <$s>' "$curl" | tee /lookup
grep -q '"STATUS":"00"' /lookup || fail "the lookup"
echo

step "reload: accepted, and refused"
if [ "$version" -ge 253 ]; then
    reload() { systemctl reload "$unit"; }
else
    reload() { systemctl kill --kill-whom=main --signal=HUP "$unit" && sleep 1; }
fi
echo '# changed' >>"$config"
reload || fail "the reload"
show StatusText
[ "$(show StatusText)" = "serving with the reloaded configuration" ] || fail "the status"
cp "$config" /good
sed -i 's|^#max_connections = .*|max_connections = 0|' "$config"
reload || fail "the reload"
show StatusText
show StatusText | grep -q '^serving with the earlier configuration.*max_connections' || fail "the status"
cp /good "$config"
reload || fail "the reload"
[ "$(show ActiveState)" = active ] || fail "it does not run"

step "the watchdog restarts a process that hangs"
pid=$(show MainPID)
sleep 4
[ "$(show MainPID)" = "$pid" ] || fail "it was restarted although it runs"
kill -STOP "$pid"
becomes NRestarts 1
becomes ActiveState active
[ "$(show MainPID)" != "$pid" ] || fail "the same process"

step "an upgrade restarts it"
pid=$(show MainPID)
dpkg --install "$2"
becomes ActiveState active
[ "$(show MainPID)" != "$pid" ] || fail "it was not restarted"

step "a stop, and purge"
systemctl stop "$unit"
echo "Result=$(show Result) ExecMainStatus=$(show ExecMainStatus)"
[ "$(show Result)" = success ] && [ "$(show ExecMainStatus)" = 0 ] || fail "the stop"
systemctl enable "$unit"
dpkg --purge cmiot-proxy
[ ! -e /etc/systemd/system/multi-user.target.wants/$unit ] || fail "it is still enabled"
[ -e /var/lib/cmiot-proxy/state.db ] || fail "the databases are gone"
echo "all steps passed"
