"""PowerMan beside the stores of bench_tsdb.py: `from pmgate import pmgate` there makes it a contender.

$STORE names the bench program (`cargo bench --bench store --no-run`); $PMGATE_BENCH_DIR where its data goes. Ingest is in
the process of the store, poll by poll, each flushed as the gateway does, hours sealed on the way and the day at the end;
bytes are all files of the store's directory: values, times, keys, sled's own, and the day's hours. Its minutes are made when
its readings go, and told beside.
"""
import json
import os
import pathlib
import shutil
import subprocess

T0_MS = 1795219200_000
DAY_MS = 86_400_000


def numbers(arrays, out):
    """The data as whole kept steps, one column after the other: thousandths, ratios in ten-thousandths, states as words."""
    import numpy as np
    a, b = arrays
    scale = [1, 1000, 1000, 1000, 10000, 1000, 1000, 1000]
    day = np.stack([np.round(a[:, m] * s) for m, s in enumerate(scale)], 1).astype("<i8")
    day.tofile(out / "a.i64")
    np.round(b * 1000).astype("<i8").tofile(out / "b.i64")


def pmgate(runs, arrays=None):
    store = os.environ["STORE"]
    at = pathlib.Path(os.environ.get("PMGATE_BENCH_DIR", "/tmp/pmgate-bench-store"))
    at.mkdir(parents=True, exist_ok=True)
    if arrays is not None:
        numbers(arrays, at)
    run = lambda *args: json.loads(subprocess.run([store, *map(str, args)], check=True, capture_output=True, text=True).stdout)
    days = []
    for _ in range(runs):
        shutil.rmtree(at / "a", ignore_errors=True)
        days.append(run("ingest", at / "a", at / "a.i64", 1, 8, T0_MS))
    shutil.rmtree(at / "b", ignore_errors=True)
    run("ingest", at / "b", at / "b.i64", 10, 1, T0_MS + DAY_MS - 7_200_000)
    end = T0_MS + DAY_MS
    # Both are answered from readings, as the gateway does while it has them.
    one = run("query", at / "a", 1, 1, T0_MS, end, 60_000, 200)
    many = run("query", at / "b", 10, 48, end - 3_600_000, end, 60_000, 200)
    last = days[-1]
    ask = lambda found: {"cpu_ms": found["cpu_ms"], "wall_ms": [found["cpu_ms"]], "bytes": 0}
    return {
        "bytes_per_sample": last["bytes_per_sample"],
        "note": f"readings alone {last['raw_bytes_per_sample']:.3f}, the rest hours; after 14 days minutes instead, {last['minute_bytes_per_sample']:.3f} for {last['minutes_cpu_us']:.3f} us; in process, without HTTP",
        "ingest_cpu_us": [day["ingest_cpu_us"] + day["seal_day_cpu_us"] for day in days],
        "how": "a poll a batch, hours and day sealed",
        "q": {"Q1": ask(one), "Q2": ask(many)},
        "rss_mib": last["rss_kib"] / 1024,
    }
