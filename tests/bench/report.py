# SPDX-License-Identifier: Apache-2.0
"""Medians, ratios and goals from raw numbers, and the table a person reads. Pure but for print."""
from statistics import median

REFERENCES = ("haproxy", "kernel")  # what ratios are taken against, hop for hop
BULK_GOAL = 0.5  # x Debian's HAProxy, one hop
IDLE_GOAL = 2048  # bytes of one process of ours per idle connection


def summarise(work_names, raw):
    """{work: {contender: {field: median, "ratio": {..}}}} of {contender: {work: [run, ..]}}."""
    return {work: {key: _summary(work, key, raw) for key in raw if raw[key].get(work)}
            for work in work_names}


def _summary(work, key, raw):
    mine = raw[key][work]
    result = {field: median(run[field] for run in mine) for field in mine[0] if field != "round"}
    result["ratio"] = {kind: ratio(mine, raw.get(f"{kind}-{key[-1]}", {}).get(work, []))
                       for kind in REFERENCES}
    return result


def ratio(mine, theirs):
    """Of CPU time. Each round against the same round, so that what slows a whole round cancels."""
    by_round = {run["round"]: run["total"] for run in theirs}
    pairs = [run["total"] / by_round[run["round"]] for run in mine if run["round"] in by_round]
    return median(pairs) if pairs else None


def median_memory(raw):
    """{contender: medians of what was seen while idle connections were held}."""
    result = {}
    for key, runs in raw.items():
        result[key] = {field: median(run[field] for run in runs)
                       for field in runs[0] if field != "processes"}
        result[key]["processes"] = {
            name: median(run["processes"][name] for run in runs) for name in runs[0]["processes"]}
    return result


def goals(works, memory):
    """What the issue promises; met is None where it could not be measured."""
    bulk = works.get("bulk", {}).get("sluice-1", {}).get("ratio", {}).get("haproxy")
    idle = [size for key in memory if key.startswith("sluice")
            for size in memory[key]["processes"].values()]
    return [
        {"goal": f"bulk, one hop: at most {BULK_GOAL} x HAProxy of Debian", "measured": bulk,
         "limit": BULK_GOAL, "met": None if bulk is None else bulk <= BULK_GOAL},
        {"goal": f"idle connection: at most {IDLE_GOAL} bytes of any agent",
         "measured": max(idle, default=None), "limit": IDLE_GOAL,
         "met": max(idle) <= IDLE_GOAL if idle else None},
    ]


def _row(cells, widths):
    first, rest = cells[0], cells[1:]
    return f"  {first:<{widths[0]}}" + "".join(f"{c:>{n}}" for c, n in zip(rest, widths[1:]))


def _times(value):
    return "-" if value is None else f"{value:.2f}"


def _print_work(title, rows, contenders):
    widths = (25, 9, 9, 9, 9, 10, 9, 11, 10)
    for hops in (1, 2):
        mine = [c for c in contenders if c.hops == hops and c.key in rows]
        if not mine:
            continue
        print(f"\n{title}, {('one hop', 'two hops')[hops - 1]} (CPU seconds)")
        print(_row(("", "total", "client", "proxy", "server", "softirq", "wall s", "x HAProxy",
                    "x kernel"), widths))
        for c in mine:
            r = rows[c.key]
            print(_row((c.label, *(f"{r[f]:.3f}" for f in
                                   ("total", "client", "proxy", "server", "ksoftirqd", "wall")),
                        *(_times(r["ratio"][kind]) for kind in REFERENCES)), widths))


def _print_memory(memory, contenders, held):
    widths = (25, 7, 12, 16, 18, 10)
    print(f"\nmemory, {held} idle connections")
    print(_row(("", "hops", "base MiB", "KiB/connection", "busiest process", "fds/conn"), widths))
    for c in contenders:
        if c.key not in memory:
            continue
        m = memory[c.key]
        print(_row((c.label, c.hops, f"{m['base'] / 2**20:.1f}",
                    f"{m['per_connection'] / 1024:.2f}",
                    f"{max(m['processes'].values()) / 1024:.2f}",
                    f"{m['fds_per_connection']:.1f}"), widths))


def _print_syscalls(syscalls, contenders):
    print("\nsystem calls of the proxy per new connection")
    for c in contenders:
        if c.key in syscalls:
            s = syscalls[c.key]
            top = ", ".join(f"{name} {n:.1f}" for name, n in list(s["calls"].items())[:10])
            print(f"  {c.label:<25}{c.hops} hop{' s'[c.hops - 1]}{s['total']:>7.1f}   {top}")


def print_report(result, contenders, titles):
    for work, title in titles.items():
        _print_work(title, result["works"][work], contenders)
    _print_memory(result["memory"], contenders, result["settings"]["idle"])
    if result.get("syscalls"):
        _print_syscalls(result["syscalls"], contenders)
    for name, lines in result.get("extra", {}).items():
        print(f"\n{name}")
        for key, value in lines.items():
            print(f"  {key}: {value}")
    print("\ngoals")
    for g in result["goals"]:
        met = {True: "met", False: "NOT MET", None: "not measured"}[g["met"]]
        print(f"  {met:<13} {g['goal']}" +
              ("" if g["measured"] is None else f" (is {g['measured']:.2f})"))
    for key, why in result["failed"].items():
        print(f"\nfailed: {key}: {why}")
