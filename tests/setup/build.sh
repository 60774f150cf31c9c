#!/usr/bin/env bash
# What building needs beside Rust: a C compiler and libc's headers (for the cryptography).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

if ! command -v cargo >/dev/null 2>&1; then
  echo "Rust is not installed: see https://rustup.rs, then run make again" >&2
  exit 1
fi
need cc gcc libc6-dev
need /usr/include/stdio.h libc6-dev
install_missing
