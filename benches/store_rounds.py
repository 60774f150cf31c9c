#!/usr/bin/env python3
"""What the store survives: killed while writing, rot, and a disk that is full. STORE names the bench program (cargo bench --bench store --no-run).

    store_rounds.py kill ROUNDS [SEED]      kill -9 at random moments; what was acknowledged must be there, and right
    store_rounds.py rot ROUNDS [SEED]       a file cut off or a bit flipped; it starts, nothing wrong is read, what is lost is told, and it goes on
    store_rounds.py full                    a tmpfs of 64 MiB filled to the brim (needs root); nothing older is lost, and it heals
"""
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

STORE = os.environ["STORE"]


def check(at):
    out = subprocess.run([STORE, "check", str(at)], capture_output=True, text=True)
    if out.returncode != 0:
        raise SystemExit(f"it does not start: {out.stderr[-2000:]}")
    return json.loads(out.stdout)


def kill(rounds, seed):
    dice, lost, wrong, slowest, acked = random.Random(seed), 0, 0, 0, 0
    with tempfile.TemporaryDirectory() as directory:
        at = pathlib.Path(directory) / "history"
        for number in range(rounds):
            log = pathlib.Path(directory) / "log"
            with log.open("w") as told:
                writer = subprocess.Popen([STORE, "fill", str(at), "100000000"], stdout=told, stderr=told)
                time.sleep(0.15 + dice.random() * 0.8)
                writer.kill()
                writer.wait()
            lines = log.read_text().splitlines()
            if not any(line.startswith("from") for line in lines):
                print(number, "killed while it opened:", lines[-1:] or "nothing said")
            acked = max([acked] + [int(line.split()[1]) for line in lines if line.startswith("acked") and line.count(" ") == 1])
            found = check(at)
            slowest = max(slowest, found["ms"])
            wrong += found["wrong"]
            lost += max(0, acked - found["whole"])
            if found["whole"] < acked or found["wrong"]:
                print(number, "acked", acked, found, lines[-5:])
        size = sum(f.stat().st_size for f in at.rglob("*") if f.is_file())
    print(json.dumps({"rounds": rounds, "seed": seed, "rows_acked": acked, "rows_lost": lost, "values_wrong": wrong, "slowest_check_ms": slowest, "bytes": size}))
    return lost == 0 and wrong == 0


def damage(at, dice):
    """Cuts a file off (one time in three) or flips a bit where something is written; says what it did."""
    file = dice.choice(sorted(f for f in at.rglob("*") if f.is_file() and f.stat().st_size))
    content = bytearray(file.read_bytes())
    written = len(content.rstrip(b"\0")) or 1
    if dice.random() < 1 / 3:
        cut = dice.randrange(written)
        file.write_bytes(content[:cut])
        return f"{file.relative_to(at)} cut to {cut} of {written}"
    bit = dice.randrange(written * 8)
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    return f"{file.relative_to(at)} bit {bit % 8} of byte {bit // 8} of {written}"


def rot(rounds, seed):
    dice, sums = random.Random(seed), dict.fromkeys(("whole", "lossy", "told", "rows_lost", "wrong", "stuck"), 0)
    with tempfile.TemporaryDirectory() as directory:
        model, at = pathlib.Path(directory) / "model", pathlib.Path(directory) / "history"
        # Two sealed days and a half, in hours and in rows.
        subprocess.run([STORE, "fill", str(model), "21960"], check=True, capture_output=True)
        truth = check(model)["rows"]
        for number in range(rounds):
            shutil.rmtree(at, ignore_errors=True)
            shutil.copytree(model, at)
            what = damage(at, dice)
            found = check(at)
            lost = truth - found["rows"]
            kept = "whole" if lost == 0 and not found["damaged"] else "lossy"
            told = found["alarms"] > 0 or found["damaged"] > 0
            on = subprocess.run([STORE, "fill", str(at), str(truth + 100)], capture_output=True, text=True)
            after = check(at)
            stuck = on.returncode != 0 or after["rows"] < 100
            for name, more in ((kept, 1), ("told", kept == "lossy" and told), ("rows_lost", lost), ("wrong", found["wrong"] + after["wrong"]), ("stuck", stuck)):
                sums[name] += int(more)
            if stuck or found["wrong"] or after["wrong"] or (kept == "lossy" and not told):
                print(number, what, found, after, on.stdout.splitlines()[-1:], on.stderr[-500:])
    print(json.dumps({"rounds": rounds, "seed": seed, "rows": truth, **sums}))
    return sums["wrong"] == 0 and sums["stuck"] == 0 and sums["told"] == sums["lossy"]


def full():
    if os.environ.get("IN_NAMESPACE") != "1":
        os.environ["IN_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "-m", sys.executable, __file__, "full"])
    disk = pathlib.Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], check=True)
    at, ballast = disk / "history", disk / "ballast"
    run = lambda rows: subprocess.run([STORE, "fill", str(at), str(rows)], capture_output=True, text=True, timeout=600)
    first = run(5_000)
    before = check(at)
    free = shutil.disk_usage(disk).free
    # Brim: what is left for the store is less than it needs for long.
    ballast.write_bytes(b"\0" * max(0, free - 6 * 1024 * 1024))
    second = run(10_000_000)
    brim = check(at)
    # And nothing at all: sled cannot open its files then, so this is only told; whoever has them open reads on.
    try:
        with (disk / "rest").open("wb", buffering=0) as rest:
            while True:
                rest.write(b"\0" * 4096)
    except OSError:
        pass
    shut = check(at)
    third = run(10_000_000)
    ballast.unlink()
    (disk / "rest").unlink()
    healed = run(brim["whole"] + 2_000)
    after = check(at)
    panicked = any("panicked" in out.stderr for out in (first, second, third, healed))
    print(json.dumps({"before": before, "brim": brim, "without_a_byte": shut, "after": after, "panicked": panicked,
                      "told": [out.stdout.splitlines()[-1:] for out in (first, second, third, healed)],
                      "errors": [out.stderr.splitlines()[-2:] for out in (second, third)]}))
    subprocess.run(["umount", str(disk)], check=False)
    return not panicked and brim["whole"] >= before["whole"] and after["whole"] >= brim["whole"] + 1_999 and after["wrong"] == 0


if __name__ == "__main__":
    verb, *rest = sys.argv[1:]
    if verb == "kill":
        good = kill(int(rest[0]), int(rest[1]) if len(rest) > 1 else 1)
    elif verb == "rot":
        good = rot(int(rest[0]), int(rest[1]) if len(rest) > 1 else 1)
    else:
        good = full()
    sys.exit(0 if good else 1)
