#!/usr/bin/env python3
"""Prints the check values of spec/evidence.md from its formulas as they stand
there, with 60 digits (needs mpmath). It shares no code and no rearrangement with
the Go package, so agreement means something.

    python3 reference.py device > device.txt
    python3 reference.py fleet  > fleet.txt
"""
import sys
from mpmath import mp, mpf, exp, log, loggamma

mp.dps = 60
MAX_EVENTS, MAX_HOURS = 100_000_000, mpf(10) ** 9


def ln_mean(logs):
    top = max(logs)
    return top + log(sum(exp(x - top) for x in logs) / len(logs))


def device(x0, t0, x1, t1):
    n, a, b = x0 + x1, 1, mpf(100)
    num = ln_mean([
        x1 * log(mpf(r)) + a * log(b) + loggamma(a + n) - loggamma(a) - (a + n) * log(b + t0 + r * t1)
        for r in (2, 4, 8, 16, 32, 64, 128)])
    power = lambda x, y: mpf(0) if x == 0 else x * log(y)
    if x1 * t0 >= x0 * t1:
        den = power(n, n / (t0 + t1)) - n
    else:
        den = power(x0, x0 / t0) + power(x1, x1 / t1) - n
    return num - den


def fleet(days):
    return ln_mean([
        sum((f1 * log(mpf(r)) + (f0 + f1) * log(mpf(r0 + r1) / (r0 + mpf(r) * r1))) if r0 + r1 else mpf(0)
            for f1, f0, r1, r0 in days)
        for r in ("1.25", "1.5", "2", "3", "5", "10", "20")])


def show(ln_e):
    if abs(ln_e) < mpf(10) ** -40:
        return "0"
    return f"{mp.nstr(ln_e, 15, strip_zeros=False, min_fixed=-9, max_fixed=12)}"


def verdict(x0, t0, x1, t1, ln_e):
    if t0 < 5 or x1 < 2:
        return "not-enough-data"
    return "recommend-removal" if ln_e >= log(mpf(20)) else "not-significant"


DEVICE = """
0 60 2 5
5 60 6 5
0 60 0 5
0 60 1 5
1 60 2 5
0 4.9 9 5
0 5 2 5
0 5 2 0.1
0 28 2 0.0333333333333
3 180 3 60
10 1000 12 40
10 1000 1 1000
10 1000 0 1000
0 1000 0 1000
7 70 7 70
100 500 100 500
1 1e-6 1 1e-6
1 1e9 2 1e-3
20 1000 400 1000
1000 100000 1300 100000
500000 100000 500000 10000
999998 1000000 2 1
2 1 999998 1000000
1000000 123456.789 1000000 123456.789
1000000 123456.789 1010000 123456.789
100000000 1000000000 100000000 999000000
"""

REFUSED = """
-1 60 2 5
0 60 -2 5
0 0 2 5
0 60 2 0
0 -60 2 5
0 60 2 -5
0 NaN 2 5
0 60 2 NaN
0 Inf 2 5
0 60 2 +Inf
0 60 2 -Inf
100000001 60 2 5
0 60 100000001 5
0 1.1e9 2 5
0 60 2 1.1e9
"""

FLEET = [
    ("one-day", [(3, 10, 100, 9900)]),
    ("two-days", [(3, 10, 100, 9900), (5, 12, 500, 9500)]),
    ("other-order", [(5, 12, 500, 9500), (3, 10, 100, 9900)]),
    ("nobody-crashed", [(0, 0, 100, 9900)]),
    ("nobody-at-risk", [(0, 0, 0, 0)]),
    ("only-offered-at-risk", [(4, 0, 100, 0)]),
    ("only-others-at-risk", [(0, 4, 0, 100)]),
    ("half-and-half", [(50, 50, 1000, 1000), (60, 40, 950, 950)]),
    ("protective", [(1, 40, 5000, 5000)]),
    ("all-crash", [(10, 10, 10, 10)]),
    ("a-million", [(1000, 990000, 1000, 999000), (400000, 300000, 1000000, 1000000)]),
    ("a-hundred-million", [(100000000, 99000000, 100000000, 100000000)]),
]

FLEET_REFUSED = [
    ("more-than-at-risk-offered", [(101, 0, 100, 9900)]),
    ("more-than-at-risk-others", [(0, 11, 100, 10)]),
    ("negative", [(-1, 0, 100, 9900)]),
    ("negative-at-risk", [(0, 0, -1, 9900)]),
    ("beyond", [(0, 0, 100000001, 9900)]),
]

if sys.argv[1:] == ["device"]:
    print("# x0 t0 x1 t1 expect: ln E, and the verdict with one app on the list; or refused")
    for line in DEVICE.split("\n"):
        if line:
            x0, t0, x1, t1 = (mpf(v) for v in line.split())
            ln_e = device(x0, t0, x1, t1)
            print(line, "expect:", show(ln_e), verdict(x0, t0, x1, t1, ln_e))
    for line in REFUSED.split("\n"):
        if line:
            print(line, "expect: refused")
elif sys.argv[1:] == ["fleet"]:
    print("# name, then days of f1,f0,r1,r0 expect: ln E; or refused")
    for cases, want in ((FLEET, None), (FLEET_REFUSED, "refused")):
        for name, days in cases:
            text = " ".join(",".join(str(v) for v in d) for d in days)
            print(name, text, "expect:", want or show(fleet(days)))
else:
    sys.exit(__doc__)
