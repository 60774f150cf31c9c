#!/usr/bin/env python3
"""Cuts the power of a gateway that writes readings, plans and audit, and looks at what is left.

    powercut.py PMGATE [--rounds N] [--seed S] [--lying]

PMGATE is the static program. It runs in a qemu guest (TCG) on a disk whose cache is volatile (disk.py), polls simulated PDUs
every second, and is switched, locked and read by clients outside. At a moment of the dice, in some rounds while it is
still starting, the machine is killed and what was not flushed is lost, in whole or in part. Then it starts again and must know:

  - every plan that a client was told of, with its outcome; its idempotency key does not switch twice
  - every line of the audit that was seen, in one unbroken chain; every lock as it was acknowledged
  - every reading that was older than the stated time at the cut, with the value that it had
  - and it must start, without an alarm.

--lying: the disk acknowledges flushes and forgets them. Then losses must be found, or the rig is blind.
"""
import argparse
import http.client
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from client import Clock, Gateway, Known, Load, series
from disk import Disk
from guest import BOOT_S, Guest, configure, empty_disk, initramfs, pdus

DISK_BYTES = 192 << 20
FLUSH_MS = 500
# A row waits up to 50 ms for company and is flushed within flush_every_ms; README says that a second may be lost.
STATED_MS = 1_000
SETTLE_S = 90
PARTS = pathlib.Path("target/powercut")


def check(known, gateway, place, pmgate, cut_ms, told):
    """Everything that was acknowledged, asked again. Faults are added to `told`; returns what was lost of readings, ms."""
    began = time.monotonic()
    while gateway.get("/v1/status")["running_plans"]:
        if time.monotonic() - began > SETTLE_S:
            told.append("plans are still running")
            break
        time.sleep(0.2)
    for alarm in gateway.get("/v1/status")["alarms"]:
        # Just started: a PDU may not have been read yet.
        if "store" in alarm or "reading" in alarm or "damaged" in alarm or "journal" in alarm:
            told.append(f"alarm: {alarm}")
    older = random.Random(len(known.plans)).sample(sorted(known.plans), min(20, len(known.plans)))
    for id in dict.fromkeys(known.fresh + older):
        status, plan = gateway.ask("GET", f"/v1/plans/{id}")
        if status != 200 or plan["state"] != "done" or plan["outcome"] != known.plans[id][3]:
            told.append(f"plan {id} was acknowledged as {known.plans[id][3]}, and is {status} {plan.get('state')} {plan.get('outcome')}")
    if known.fresh:
        id = known.fresh[-1]
        key, path, body, _ = known.plans[id]
        status, again = gateway.ask("POST", path, body, {"idempotency-key": key})
        if status != 200 or again["id"] != id:
            told.append(f"the key of plan {id} made {again}")
    # The newest: with the chain unbroken, those before it are what they were.
    for seq, hash in sorted(known.lines.items())[-3:]:
        page = gateway.get(f"/v1/audit?limit=1&cursor={seq - 1}")["entries"] if seq else []
        if seq and (not page or page[0]["hash"] != hash):
            told.append(f"line {seq} of the audit is not what it was")
    for path, wanted in known.locked.items():
        locked = gateway.get(path.removesuffix("/lock"))["locked"]
        if wanted is not None and locked != wanted:
            told.append(f"{path}: acknowledged {wanted}, is {locked}")
        known.locked[path] = locked
    port = gateway.connection.port
    verified = subprocess.run([pmgate, "audit", "verify", "--url", f"https://127.0.0.1:{port}", "--cert", place / "operator.pem",
                               "--key", place / "operator.key", "--ca", place / "ca.pem"], capture_output=True, text=True)
    if verified.returncode != 0:
        told.append(f"audit verify: {verified.stderr}")
    return readings(known, gateway, cut_ms, told)


def online(guest, place):
    """Waits until every PDU answers: before that nothing can be switched."""
    gateway, began = Gateway(guest.port, place, "operator"), time.monotonic()
    while gateway.get("/v1/status")["pdus"]["online"] < len(pdus()):
        if time.monotonic() - began > BOOT_S:
            raise SystemExit("not every PDU was read: " + json.dumps(gateway.get("/v1/status")))
        time.sleep(0.2)


def readings(known, gateway, cut_ms, told):
    lost_ms = 0
    first = min((at for _, at in known.points), default=0) / 1000
    for pdu in pdus():
        found = dict(series(gateway, pdu, first))
        for (of, at), value in sorted(known.points.items()):
            if of != pdu or found.get(at) == value:
                continue
            if at in found:
                told.append(f"{pdu} at {at} was {value} and is {found[at]}")
                continue
            lost_ms = max(lost_ms, cut_ms - at)
            del known.points[of, at]
    return lost_ms


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("pmgate", type=pathlib.Path)
    arguments.add_argument("--rounds", type=int, default=50)
    arguments.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    arguments.add_argument("--lying", action="store_true")
    args = arguments.parse_args()
    print(f"{args.rounds} power cuts, seed {args.seed}" + (", on a disk that lies about flushes" if args.lying else ""), flush=True)
    with tempfile.TemporaryDirectory(prefix="powercut-") as directory:
        work = pathlib.Path(directory)
        try:
            faults = run(args, work)
        except (SystemExit, RuntimeError, OSError, http.client.HTTPException) as ended:
            faults = [repr(ended)]
            print(f"ended by {ended!r}", *(log.read_text(errors="replace")[-3000:] for log in work.glob("serial-*.log")), flush=True)
    if args.lying:
        print("the rig sees a disk that lies" if faults else "THE RIG IS BLIND: nothing was missed on a disk that forgets")
        sys.exit(0 if faults else 1)
    print("nothing acknowledged was lost" if not faults else f"{len(faults)} FAULTS, with seed {args.seed}")
    sys.exit(1 if faults else 0)


def run(args, work):
    dice, place, pmgate = random.Random(args.seed), work / "config", args.pmgate.resolve()
    configure(pmgate, place, FLUSH_MS)
    initramfs(pmgate, PARTS, place, work / "initramfs")
    image, known, faults, cut_ms, sums = empty_disk(DISK_BYTES, work), Known(), [], 0, dict(writes=0, lost=0, flushes=0, worst_ms=0, early=0)
    print("round  when      boot s  plans  audit  points  flushes  unflushed  lost  readings lost ms", flush=True)
    for number in range(args.rounds + 1):
        disk = Disk(image, args.lying)
        guest = Guest(disk, work, PARTS, number)
        told, lost_ms, is_last = [], 0, number == args.rounds
        try:
            # Some are cut while they start and recover. Never twice in a row: the clients are to see something.
            is_early = not is_last and number % 5 == 4 and dice.random() < 0.9
            boot = guest.wait_for("rig: mounted" if is_early else "is served at")
            clock = Clock()
            if is_early:
                sums["early"] += 1
                time.sleep(dice.random() * 4)
                ran = "starting"
            else:
                # Outlets are known, and plans settled, once their PDUs answer.
                online(guest, place)
                lost_ms = check(known, Gateway(guest.port, place, "operator"), place, pmgate, cut_ms, told)
                known.fresh = []
                if is_last:
                    ran = "checked"
                else:
                    load = Load(known, guest.port, place, clock)
                    if not load.first.wait(60):
                        raise SystemExit(f"nothing was switched within 60 s: {load.failures}\n{guest.said()[-3000:]}")
                    ran = 0.5 + dice.random() * 7
                    time.sleep(ran)
                    if load.failures:
                        told.append(f"before the cut: {load.failures}")
                    load.stop.set()
                    ran = f"{ran:.1f} s"
            under_way, lost = disk.cut(dice)
            if clock.ahead_ms is not None:
                cut_ms = clock.now()
        finally:
            guest.kill()
        if not is_early and not is_last:
            load.end()
        image = disk.durable
        if lost_ms > STATED_MS:
            told.append(f"readings of {lost_ms} ms before the cut are lost; {STATED_MS} ms are stated")
        for key, value in (("writes", under_way), ("lost", lost), ("flushes", disk.flushes)):
            sums[key] += value
        sums["worst_ms"] = max(sums["worst_ms"], lost_ms)
        print(f"{number:5}  {ran:8}  {boot:6.1f}  {len(known.plans):5}  {max(known.lines, default=0):5}  {len(known.points):6}  "
              f"{disk.flushes:7}  {under_way:9}  {lost:4}  {lost_ms:8}", flush=True)
        for fault in told:
            print(f"       FAULT: {fault}", flush=True)
        faults += [f"round {number}: {fault}" for fault in told]
        if told and args.lying:
            break
        guest.log.unlink(missing_ok=True)
    print(f"{args.rounds} cuts ({sums['early']} while starting): {len(known.plans)} plans, {max(known.lines, default=0)} lines of audit, "
          f"{len(known.points)} readings known; {sums['flushes']} flushes; {sums['writes']} writes not flushed, {sums['lost']} of them lost; "
          f"readings lost at most {sums['worst_ms']} ms before a cut; {known.refused} switchings refused")
    return faults


if __name__ == "__main__":
    main()
