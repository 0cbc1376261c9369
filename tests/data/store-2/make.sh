# Writes the databases of this folder: `sh make.sh PROXY OUT`, as root, with PostgreSQL and OpenSSL. The proxy of
# proxy.toml and two simulated carriers run on this machine, in a fleet of one node.
set -eu
proxy=$1 out=$2
here=$(cd "$(dirname "$0")" && pwd)
work=/tmp/cmiot-fixture
mkdir -m 755 "$work"
cd "$work"
started=
trap 'kill $started 2> /dev/null || true; rm -r "$work"' EXIT
cp "$here"/files/* .
# Without the proxy on the way to the carrier, which the machine does not have.
sed '/^proxy = /d' "$here/proxy.toml" > proxy.toml
openssl req -x509 -newkey ed25519 -nodes -keyout ca.key -out ca.pem -days 30 -subj /CN=fixture 2> openssl.log
openssl req -x509 -newkey ed25519 -nodes -keyout server.key -out server.pem -days 30 -subj /CN=localhost \
    -CA ca.pem -CAkey ca.key -addext subjectAltName=DNS:localhost,IP:127.0.0.1 \
    -addext basicConstraints=critical,CA:FALSE 2>> openssl.log
chmod 600 ./*.*
cp server.key database.key
cp server.pem database.pem
chmod 644 database.pem

# PostgreSQL accepts no root.
bin=$(echo /usr/lib/postgresql/*/bin)
mkdir -m 700 database
mkdir -m 755 socket
chown postgres database socket database.key
as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
as_postgres "$bin/initdb" -D database -A trust -E UTF8 > postgres.log
as_postgres "$bin/postgres" -D database -k "$work/socket" -c listen_addresses=127.0.0.1 -c port=18054 \
    -c ssl=on -c ssl_cert_file="$work/database.pem" -c ssl_key_file="$work/database.key" >> postgres.log 2>&1 &
started=$!
until psql -h "$work/socket" -p 18054 -U postgres -c 'CREATE ROLE cmiot_owner LOGIN' >> postgres.log 2>&1; do
    sleep 1
done
psql -h "$work/socket" -p 18054 -U postgres -c 'CREATE ROLE cmiot_node LOGIN' \
    -c 'CREATE DATABASE cmiot OWNER cmiot_owner' >> postgres.log
"$proxy" fleet migrate --config proxy.toml --user cmiot_owner

"$proxy" simulate --listen 127.0.0.1:18090 --account 100001:0001000000009:fixture-account \
    --rule 'card=14765004178 status=02 times=1' --rule 'card=14765004179 code=9' \
    --rule 'card=14765004180 http=502' > carrier.log &
started="$started $!"
"$proxy" simulate --listen 127.0.0.1:18095 --api v5 --account 200001:fixture-account-v5 \
    --account 200002:fixture-account-v5 > carrier-v5.log &
started="$started $!"
"$proxy" serve --config proxy.toml > serve.log 2> serve.err &
serve=$!
started="$started $serve"
until grep -q admin serve.log; do sleep 1; done
sleep 3 # a heartbeat, and the first grant of calls

for number in 14765004176 14765004177 14765004178 14765004179 14765004180 14765004176; do
    "$proxy" lookup --config proxy.toml --client GW0001 "$number" || true # 9 and 73 are failures of the command
done
"$proxy" lookup --config proxy.toml --client GW0003 14765004181
# A note, a change of STATUS, and a message to a receiver that is not there.
"$proxy" cache purge --config proxy.toml --token-file admin.secret --group group-1 --card 14765004178
"$proxy" lookup --config proxy.toml --client GW0001 14765004178
# The account of API v5, whose clients need a certificate.
echo 14765004182 > warm.csv
"$proxy" cache warm --config proxy.toml --token-file admin.secret --group group-2 --file warm.csv
# A refusal: no transid.
curl -sk "$(sed -n 's/^gateway //p' serve.log)/v2/userstatusrealsingle?msisdn=14765004176" > refused.log
sleep 8 # until the message is given up

kill "$serve"
wait "$serve" || true
cp data/cache.db data/state.db data/anchors.log data/audit-anchor.pub data/audit-2*.db "$out"
