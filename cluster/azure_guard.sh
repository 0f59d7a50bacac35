#!/usr/bin/env bash
# Deallocates this Azure machine after the given hours, or ten minutes after Ray ended on it; Ray's first
# start may take half an hour, because this script begins with the set-up.
#
# Azure still bills a machine that is shut down from inside, so this asks Azure to deallocate it, with the
# identity that Ray gives each machine and that may do so within its resource group.
# Usage: azure_guard.sh HOURS
set -u

metadata() {
  curl --silent --header Metadata:true --noproxy '*' "http://169.254.169.254/metadata/$1"
}

end=$(($(date +%s) + $1 * 3600))
missed=-20
while [ "$(date +%s)" -lt "$end" ] && [ "$missed" -lt 10 ]; do
  sleep 60
  if pgrep -x raylet > /dev/null; then missed=0; else missed=$((missed + 1)); fi
done

# Repeated until it works, for nothing else would end this machine.
while true; do
  machine=$(metadata 'instance/compute/resourceId?api-version=2021-02-01&format=text')
  token=$(metadata 'identity/oauth2/token?api-version=2018-02-01&resource=https://management.azure.com/' |
    sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  curl --silent --request POST --header "Authorization: Bearer $token" --data '' \
    "https://management.azure.com$machine/deallocate?api-version=2024-03-01"
  sleep 300
done
