#!/usr/bin/env bash
# Lets the other machines of a job into this container: an sshd of the container's own user, in the foreground.
#   serve_ssh.sh [PORT]        (2222)
# Who may come in is said by ~/.ssh/authorized_keys; mount ~/.ssh from outside (containers/README.md).
set -euo pipefail
port=${1:-2222}
if [[ ! -s ~/.ssh/authorized_keys ]]; then
    echo "error: ~/.ssh/authorized_keys names no key, so nobody could come in: mount a folder with one as $HOME/.ssh" >&2
    exit 1
fi
keys=$(mktemp --directory)
ssh-keygen -q -t ed25519 -N '' -f "$keys/host_key"
# StrictModes would ask for the owner of a mounted ~/.ssh to have the same number here as outside.
exec /usr/sbin/sshd -D -e -f /dev/null -p "$port" -h "$keys/host_key" \
    -o PidFile=none -o UsePAM=no -o PasswordAuthentication=no -o StrictModes=no -o "AuthorizedKeysFile=$HOME/.ssh/authorized_keys"
