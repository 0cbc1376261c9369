#!/bin/sh
# Installs, upgrades and erases the packages $1 and $2, a later one, by Debian's rpm under a real systemd, so that rpm runs
# their scriptlets. --nodeps: dpkg has the dependencies of this root, and rpm does not know them.
set -eu
unit=cmiot-proxy.service
config=/etc/cmiot-proxy/cmiot-proxy.toml
data=/var/lib/cmiot-proxy
step() { echo "--- $*"; }
show() { systemctl show "$unit" --property="$1" --value; }
fail() {
    echo "FAILED: $*"
    systemctl status --no-pager --lines=20 "$unit" || true
    exit 1
}
is() { [ "$2" = "$3" ] || fail "$1 is $2, not $3"; }
rights() { stat -c %U:%G:%a "$1"; }
# The output of rpm goes to the log; a scriptlet that fails prints a warning there.
rpm_() {
    rpm --nodeps "$@" >/rpm.log 2>&1 || { cat /rpm.log; fail "rpm $*"; }
    cat /rpm.log
    if grep -qi 'scriptlet' /rpm.log; then fail "a scriptlet of rpm $*"; fi
}
installed() {
    is "the home of the user" "$(getent passwd cmiot-proxy | cut -d: -f6)" "$data"
    is "the shell of the user" "$(getent passwd cmiot-proxy | sed 's|.*/||')" nologin
    is "the mode of $data" "$(rights $data)" cmiot-proxy:cmiot-proxy:750
    is "the mode of /etc/cmiot-proxy" "$(rights /etc/cmiot-proxy)" root:cmiot-proxy:750
    is "the mode of $config" "$(rights $config)" root:cmiot-proxy:640
    cmiot-proxy --version >/dev/null || fail "the executable"
}

step "install without systemd-sysusers: useradd makes the user"
mv /usr/bin/systemd-sysusers /usr/bin/hidden
rpm_ --install "$1"
installed
rpm_ --erase cmiot-proxy
userdel cmiot-proxy
rm -r "$data"
mv /usr/bin/hidden /usr/bin/systemd-sysusers

step "install"
rpm_ --install "$1"
installed
is "the state" "$(show ActiveState)" inactive
is "the unit" "$(systemctl is-enabled "$unit" || true)" disabled
for file in /usr/share/man/man1/cmiot-proxy-serve.1.gz /usr/share/bash-completion/completions/cmiot-proxy \
    /usr/share/doc/cmiot-proxy/third-party-notices.txt; do
    [ -s "$file" ] || fail "$file is missing"
done
# The group is set by the scriptlet; everything else is as the package has it.
rpm --verify --nodeps cmiot-proxy >/verified || true
if grep -v '^\.\.\.\.\.\.G\.\.' /verified; then fail "these files differ from the package"; fi

step "start, and one lookup"
systemd-run --quiet --unit=carrier cmiot-proxy simulate --listen 127.0.0.1:9000 --account 100001:0001000000009:carrier
echo carrier | install -m 640 -g cmiot-proxy /dev/stdin /etc/cmiot-proxy/fleet.password
cat >>"$config" <<END
[[account]]
name = "fleet"
appid = "100001"
ebid = "0001000000009"
password_file = "fleet.password"
END
sed -i 's|^#base_url = .*|base_url = "http://127.0.0.1:9000"|' "$config"
is "the mode of $config" "$(rights $config)" root:cmiot-proxy:640
setpriv --reuid=cmiot-proxy --regid=cmiot-proxy --clear-groups cmiot-proxy check --config "$config" >/dev/null
systemctl enable --now "$unit"
cmiot-proxy lookup 14765004176 --config "$config" | tee /lookup
grep -q '"STATUS":"00"' /lookup || fail "the lookup"
pid=$(show MainPID)

step "an upgrade restarts it, and keeps the configuration and the databases"
cp "$config" /changed
rpm_ --upgrade "$2"
installed
cmp "$config" /changed || fail "the configuration was replaced"
is "the release" "$(rpm --query --queryformat '%{RELEASE}' cmiot-proxy)" 2
is "the state" "$(show ActiveState)" active
is "the unit" "$(systemctl is-enabled "$unit" || true)" enabled
[ "$(show MainPID)" != "$pid" ] || fail "it was not restarted"
cmiot-proxy lookup 14765004176 --config "$config" | tee /lookup
grep -q '^cache-status: .*hit' /lookup || fail "the second lookup"

step "erase"
rpm_ --erase cmiot-proxy
[ ! -e /usr/bin/cmiot-proxy ] || fail "the executable is still there"
[ ! -e "$config" ] && [ -e "$config.rpmsave" ] || fail "the changed configuration was not renamed"
is "the state" "$(show ActiveState)" inactive
[ ! -e /etc/systemd/system/multi-user.target.wants/$unit ] || fail "it is still enabled"
if pgrep -x cmiot-proxy -u cmiot-proxy; then fail "it still runs"; fi
# The audit is evidence.
[ -e "$data/state.db" ] || fail "the databases are gone"
is "the mode of $data" "$(rights $data)" cmiot-proxy:cmiot-proxy:750
echo "all steps passed"
