# Sourced by the set-up scripts: installs Debian packages where it may, else prints the one line to paste.

# need COMMAND-OR-FILE PACKAGE … : remembers the packages of what is not there.
missing=()
need() {
  local what=$1; shift
  case $what in
    /*) [ -e "$what" ] ;;
    *) command -v "$what" >/dev/null 2>&1 || [ -x "/usr/sbin/$what" ] ;;
  esac || missing+=("$@")
}

install_missing() {
  [ ${#missing[@]} -gt 0 ] || return 0
  # What is installed stays: a package that would have another removed is for a person to decide.
  local line="apt-get install -y --no-remove --no-install-recommends ${missing[*]}"
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "not on this machine, and no apt-get to install it with: ${missing[*]}" >&2
    exit 1
  fi
  local as=()
  if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
      echo "something is missing; paste this, then run make again:" >&2
      echo "    sudo apt-get update && sudo $line" >&2
      exit 1
    fi
    as=(sudo -n)
  fi
  echo "installing ${missing[*]}"
  # RUNLEVEL=1: services that come with a package are not started.
  local log; log=$(mktemp)
  if ! { "${as[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get update &&
         "${as[@]}" env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 $line; } >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    if grep -q 'remove is disabled' "$log"; then
      echo "that would have packages removed; where they may go, paste this, then run make again:" >&2
      echo "    sudo ${line/--no-remove /}" >&2
    else
      echo "that did not work: sudo $line" >&2
    fi
    exit 1
  fi
  rm -f "$log"
}
