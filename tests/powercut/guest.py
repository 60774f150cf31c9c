"""The guest: a Debian kernel, an initramfs with busybox, the static pmgate and its configuration; started under qemu."""
import lzma
import os
import pathlib
import socket
import subprocess
import time

HERE = pathlib.Path(__file__).resolve().parent
# In the order in which they need each other.
MODULES = ["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk",
           "failover", "net_failover", "virtio_net", "crc16", "mbcache", "jbd2", "crc32c_generic", "libcrc32c", "ext4"]
BOOT_S = 180
PDUS, OUTLETS = 3, 12

GATEWAY = """rack = "powercut"
listen = "0.0.0.0:8443"
state_dir = "/data/state"
[tls]
certificate = "server.pem"
key = "server.key"
client_ca = "ca.pem"
crl = "crl.pem"
[poll]
fast_s = 1
slow_s = 5
stale_after_s = 20
[switching]
fresh_s = 20
[store]
flush_every_ms = {flush_ms}
[secret.v2c]
community_file = "community"
write_community_file = "write"
"""
PDU = '[[pdu]]\nid = "{id}"\nsnmp = "127.0.0.1:{port}"\nsecret = "v2c"\n'
SIM = '[[pdu]]\nid = "{id}"\nfamily = "apc-rpdu2"\nlisten = "127.0.0.1:{port}"\noutlets = {outlets}\nphases = 1\nbranches = 2\nseed = {number}\n'


def pdus():
    return [f"pdu-{chr(ord('a') + number)}" for number in range(PDUS)]


def configure(pmgate, place, flush_ms):
    """Certificates, configuration and secrets, in a directory that both ends read."""
    place.mkdir(parents=True)
    ca = place / "ca"
    run = lambda *args: subprocess.run([pmgate, "ca", *args, "--dir", ca], check=True, capture_output=True)
    run("init", "--domain", "powercut.local")
    run("issue", "--role", "server", "--host", "127.0.0.1", "server")
    for role in ("operator", "admin"):
        run("issue", "--role", role, role)
    for name in ("ca.pem", "crl.pem", "server.pem", "server.key", "operator.pem", "operator.key", "admin.pem", "admin.key"):
        (place / name).write_bytes((ca / name).read_bytes())
    for name, text in (("community", "public"), ("write", "private")):
        (place / name).write_text(text)
    numbered = [dict(id=id, port=16100 + number, number=number + 1, outlets=OUTLETS) for number, id in enumerate(pdus())]
    (place / "gateway.toml").write_text(GATEWAY.format(flush_ms=flush_ms) + "".join(PDU.format(**pdu) for pdu in numbered))
    (place / "sim.toml").write_text("".join(SIM.format(**pdu) for pdu in numbered))
    for name in ("server.key", "operator.key", "admin.key", "community", "write"):
        (place / name).chmod(0o600)


def cpio(entries):
    """An archive in the "newc" format, which the kernel unpacks as its first root."""
    out = bytearray()
    for inode, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        name = name.encode() + b"\0"
        fields = [inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0]
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return bytes(out)


def initramfs(pmgate, parts, place, to):
    """What the guest boots into."""
    modules = {path.name.split(".")[0].replace("-", "_"): path for path in parts.rglob("lib/modules/**/*.ko*")}
    # What is not a module is in the kernel; where it is not, the guest says so.
    wanted = [name for name in MODULES if name in modules]
    entries = [(name, 0o040755, b"") for name in ("bin", "data", "dev", "etc", "etc/pmgate", "modules", "proc", "sys")]
    file = lambda name, path, mode=0o100755: entries.append((name, mode, pathlib.Path(path).read_bytes()))
    file("init", HERE / "init.sh")
    file("bin/busybox", next(parts.rglob("bin/busybox")))
    file("pmgate", pmgate)
    for name in wanted:
        data = modules[name].read_bytes()
        unpacked = lzma.decompress(data) if modules[name].suffix == ".xz" else data
        entries.append((f"modules/{name}.ko", 0o100644, unpacked))
    entries.append(("modules/order", 0o100644, "".join(f"{name}.ko\n" for name in wanted).encode()))
    for name in ("ca.pem", "crl.pem", "server.pem", "server.key", "community", "write", "gateway.toml", "sim.toml"):
        file(f"etc/pmgate/{name}", place / name, 0o100600)
    to.write_bytes(cpio(entries))


def kernel(parts):
    """The kernel, unpacked: qemu starts it as it is (PVH), and the guest does not spend most of its boot on xz."""
    plain = parts / "vmlinux"
    if not plain.exists():
        found = sorted((parts / "boot").glob("vmlinuz-*"))
        if not found:
            raise SystemExit(f"there is no kernel in {parts}: run tests/setup/powercut.sh")
        packed = found[-1].read_bytes()
        begin = packed.find(b"\xfd7zXZ\0")
        if begin < 0:
            return found[-1]
        plain.write_bytes(lzma.LZMADecompressor().decompress(packed[begin:]))
    return plain


def empty_disk(size, work):
    """An ext4 file system as mke2fs makes it: barriers on, data ordered."""
    image = work / "empty.img"
    with image.open("wb") as out:
        out.truncate(size)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", str(image)], check=True,
                   env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
    data = image.read_bytes()
    image.unlink()
    return data


class Guest:
    """A running machine."""

    def __init__(self, disk, work, parts, number):
        self.socket = nbd = work / f"disk-{number}.sock"
        self.log = work / f"serial-{number}.log"
        disk.serve(str(nbd))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.machine = subprocess.Popen([
            "qemu-system-x86_64", "-accel", "tcg,tb-size=128", "-cpu", "max", "-smp", "1", "-m", "320", "-nodefaults", "-display", "none",
            "-no-reboot", "-rtc", "base=utc", "-serial", f"file:{self.log}", "-kernel", str(kernel(parts)),
            "-initrd", str(work / "initramfs"),
            "-append", "console=ttyS0 quiet panic=1 mitigations=off random.trust_cpu=on no_timer_check tsc=nowatchdog",
            # The guest sees a write-back cache and flushes it; what flushing means is the server's business.
            "-drive", f"file=nbd:unix:{nbd},format=raw,if=virtio,cache=writeback",
            "-netdev", f"user,id=n,restrict=on,hostfwd=tcp:127.0.0.1:{self.port}-10.0.2.15:8443", "-device", "virtio-net-pci,netdev=n,romfile=",
        ], stdin=subprocess.DEVNULL)

    def said(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def wait_for(self, words):
        """Waits until the guest says something; seconds that it took."""
        began = time.monotonic()
        while words not in self.said():
            if self.machine.poll() is not None or "rig: the gateway ended" in self.said():
                raise SystemExit(f"the guest ended before it said \"{words}\":\n{self.said()[-3000:]}")
            if time.monotonic() - began > BOOT_S:
                raise SystemExit(f"not \"{words}\" within {BOOT_S} s:\n{self.said()[-3000:]}")
            time.sleep(0.05)
        return time.monotonic() - began

    def kill(self):
        self.machine.kill()
        self.machine.wait()
        self.socket.unlink(missing_ok=True)
