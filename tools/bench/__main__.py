"""Measure every line and print a table; exit status 1 if one is missed."""

import argparse
import sys

import cv2

from tools.bench import cache, features, generation, metrics, training, views  # noqa: F401  # each registers its lines
from tools.bench.lines import HEAD, LINES, Measured, measure


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="Paired measurements of each line.")
    parser.add_argument("--only", default="", help="Lines whose text holds this.")
    parser.add_argument("--quick", action="store_true", help="One round of each line, only to see that it works: no bar is judged.")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(HEAD)
    measured: list[Measured] = []
    for line in LINES:
        if options.only in line.what:
            measured.append(measure(line, 1 if options.quick else options.rounds))
            print(measured[-1], flush=True)
    return 0 if options.quick or all(each.holds for each in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
