#!/bin/sh
# Makes the secrets of compose.yaml, each a random word, in the folder `secrets` beside this file, which git ignores.
# What is there already stays. To change one: remove its files, run this again, and make the containers anew.
set -eu
umask 077
mkdir -p "$(dirname "$0")/secrets"
cd "$(dirname "$0")/secrets"

word() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
make() { [ -e "$1" ] || { cat > "$1.new" && mv "$1.new" "$1" && echo "made secrets/$1"; }; }

# Read by containers whose users are others than this one.
umask 022
word | make postgres-password
word | make receiver-token
umask 077

login="transship:$(word)"
if [ ! -e server.env ] || [ ! -e client.env ]; then
  rm -f server.env client.env
  printf 'PREFECT_SERVER_API_AUTH_STRING=%s\nPREFECT_API_AUTH_STRING=%s\nPREFECT_SERVER_DATABASE_PASSWORD=%s\n' \
    "$login" "$login" "$(cat postgres-password)" | make server.env
  printf 'PREFECT_API_AUTH_STRING=%s\n' "$login" | make client.env
fi
printf 'AWS_ACCESS_KEY_ID=transship\nAWS_SECRET_ACCESS_KEY=%s\n' "$(word)" | make s3.env

umask 022
# People push to 127.0.0.1:5000; mirrors know the registry as registry:5000.
make registry.yml <<END
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: /var/lib/registry}
  delete: {enabled: true}
http: {addr: ":5000"}
health: {storagedriver: {enabled: true, interval: 10s, threshold: 3}}
notifications:
  endpoints:
    - name: transship
      url: http://receiver:8765/notifications?registry=registry:5000
      headers: {Authorization: ["Bearer $(cat receiver-token)"]}
      timeout: 5s
      threshold: 5
      backoff: 10s
      ignore: {actions: [pull]}
END
