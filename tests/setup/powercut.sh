#!/usr/bin/env bash
# What `make powercut` needs: qemu, and for its guest a kernel and a static busybox of Debian, which are unpacked and not
# installed. The guest is x86-64 whatever this machine is; pmgate must be built for it.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/setup/lib.sh
tests/setup/build.sh

if [ "$(uname -m)" != x86_64 ]; then
  echo "make powercut runs on x86-64 only: its guest runs the program that was built here" >&2
  exit 1
fi
need qemu-system-x86_64 qemu-system-x86
need mke2fs e2fsprogs
need python3 python3
need dpkg-deb dpkg
install_missing

parts=target/powercut
[ -e "$parts/done" ] && exit 0
rm -rf "$parts" && mkdir -p "$parts/debs"
# The metapackage names the kernel of the day.
kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
echo "fetching ${kernel:?there is no linux-image-amd64: apt-get update} and busybox-static"
(cd "$parts/debs" && apt-get download "$kernel" busybox-static 2>/dev/null)
for deb in "$parts"/debs/*.deb; do dpkg-deb -x "$deb" "$parts"; done
rm -rf "$parts/debs"
touch "$parts/done"
