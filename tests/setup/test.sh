#!/usr/bin/env bash
# What the tests need: real peers from Debian and PyPI. They are all real: no test is skipped for want of one.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/setup/lib.sh
tests/setup/build.sh

need curl curl
need openssl openssl
need snmpget snmp
need snmpd snmpd
need promtool prometheus
need pkill procps
need socat socat
need fence_apc_snmp fence-agents python3-pexpect python3-pycurl
need telnet telnet
need powermand powerman
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
install_missing

[ -d ../shared/devices ] ||
  echo "the recordings and stand-ins that are prepared beside the project are not here: tests that replay them are skipped"

tools=target/test-tools
wanted=tests/setup/requirements.txt
if ! cmp -s "$wanted" "$tools/installed.txt"; then
  mkdir -p "$tools"
  python3 -m venv "$tools/venv"
  "$tools/venv/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
  cp "$wanted" "$tools/installed.txt"
fi
