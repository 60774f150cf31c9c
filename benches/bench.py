#!/usr/bin/env python3
"""What a poll and a switch cost, beside net-snmp's tools on the same simulated PDU. Prints ratios; judges nothing.

PMGATE names the program (make bench sets it). benches/peers/ stands beside other pollers and switchers in a larger kit.
"""
import http.client
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import resource
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
# The same preparation as for the larger kit; the file has no ending, so it is loaded by hand.
LOADER = importlib.machinery.SourceFileLoader("gateway", str(HERE / "peers/pmgate"))
gateway = importlib.util.module_from_spec(importlib.util.spec_from_loader("gateway", LOADER))
LOADER.exec_module(gateway)

ROUNDS = 200
TREE = "1.3.6.1.4.1.318.1.1.26"
COMMAND, STATE = f"{TREE}.9.2.4.1.5.1", f"{TREE}.9.2.3.1.5.1"


def free(kind):
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


def started(command, word):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if word in line:
            return process
    raise SystemExit(f"{command} ended")


def cpu(pid):
    """Seconds of CPU of all threads, from the scheduler (ns)."""
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def timed(call):
    """Median wall in ms over the rounds."""
    walls = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        walls.append((time.perf_counter() - start) * 1e3)
    return statistics.median(walls)


def tool(*command):
    def run():
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = timed(run)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, spent / ROUNDS * 1e3


def row(what, ours, theirs, unit):
    print(f"{what:<44} {ours:9.3f} {unit}   net-snmp {theirs:9.3f} {unit}   ratio {ours / theirs:6.3f}")


def main():
    with tempfile.TemporaryDirectory() as directory:
        at = pathlib.Path(directory)
        device, listen = free(socket.SOCK_DGRAM), free(socket.SOCK_STREAM)
        # The load goes with the relay, as on a real PDU: an off is verified by both.
        loads = [f"{COMMAND} -> {TREE}.9.4.3.1.{column}.1 1:=, 2:0\n" for column in (6, 7)]
        (at / "rules").write_text(f"{COMMAND} -> {STATE} 1:2, 2:1\n" + "".join(loads))
        recording = HERE.parent / "tests/recordings/apc-rpdu2.snmprec"
        sim = started([gateway.program(), "sim", "--recording", str(recording), "--listen", device, "--rules", str(at / "rules")], "ready")
        gateway.prepare(at, listen, [("pdu-1", device)], {"fast_s": 3600, "slow_s": 3600}, ["write_gap_ms = 0"])
        serving = started([gateway.program(), "serve", "--config", str(at / "gateway.toml")], "pdu-1 is online")
        try:
            tls = ssl.create_default_context(cafile=str(at / "ca/ca.pem"))
            tls.load_cert_chain(str(at / "ca/client.pem"), str(at / "ca/client.key"))
            host, port = listen.split(":")
            api = http.client.HTTPSConnection(host, int(port), context=tls, timeout=30)

            def ask(method, path, body=None):
                api.request(method, path, body, {"content-type": "application/json"} if body else {})
                answer = api.getresponse()
                text = answer.read()
                if answer.status != 200:
                    raise SystemExit(f"{path}: {answer.status} {text}")

            print(f"4 outlets, {ROUNDS} rounds, medians; ours over one kept mTLS connection, stored, journaled and verified;")
            print("net-snmp a process a call, neither stored nor verified\n")
            before = cpu(serving.pid)
            wall = timed(lambda: ask("GET", "/v1/pdus/pdu-1?max_age_ms=0"))
            spent = (cpu(serving.pid) - before) / ROUNDS * 1e3
            their_wall, their_cpu = tool("snmpbulkwalk", "-v2c", "-c", "public", "-Oqn", "-Cr40", device, TREE)
            row("poll of everything: wall", wall, their_wall, "ms")
            row("poll of everything: CPU", spent, their_cpu, "ms")
            actions = iter(["off", "on"] * ROUNDS)
            power = lambda: ask("POST", "/v1/pdus/pdu-1/outlets/1/power", json.dumps({"action": next(actions)}))
            before = cpu(serving.pid)
            wall = timed(power)
            spent = (cpu(serving.pid) - before) / ROUNDS * 1e3
            their_wall, their_cpu = tool("snmpset", "-v2c", "-c", "private", "-Oqn", device, COMMAND, "i", "1")
            row("switch: call to verified answer / to SET: wall", wall, their_wall, "ms")
            row("switch: CPU", spent, their_cpu, "ms")
            status = pathlib.Path(f"/proc/{serving.pid}/status").read_text()
            resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
            print(f"\nthe gateway's memory: {int(resident.split()[1]) / 1024:.1f} MiB")
        finally:
            for process in (serving, sim):
                process.terminate()
                process.wait()


main()
