"""`python -m benchmarks`: run the benchmarks; a full run writes benchmarks/results.json and benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import os
import sys

from benchmarks import commands, container_images, containers, course, guests, networks, peers, report, views
from benchmarks.bench import Bench
from benchmarks.measure import Measure
from cloudlab import Lab

BENCHMARKS = {
    "start": guests.start,
    "state": guests.state,
    "idle": guests.idle,
    "commands": commands.commands,
    "files": commands.files,
    "randomisation": commands.randomisation,
    "cluster": networks.cluster,
    "switch": networks.switch,
    "containers": containers.containers,
    "density": containers.density,
    "images": container_images.images,
    "views": views.views,
    "image": course.image,
    "page": course.page,
    "lesson": course.lesson,
}


def main() -> int:
    arguments = _arguments()
    os.environ["TQDM_DISABLE"] = "1"
    if not peers.has_sandbox():
        print("quick-sandbox is not installed, and is left out: scripts/setup bench", file=sys.stderr)
    measures: list[Measure] = []
    with Lab() as lab:
        bench = _bench(lab, arguments.runs, quick=arguments.quick)
        known = report.facts(bench)
        print(*(f"{name}: {value}" for name, value in known.items()), report.warning(known), sep="\n", flush=True)
        for name in arguments.only or BENCHMARKS:
            print(f"{name}: {BENCHMARKS[name].__doc__}", flush=True)
            measures += BENCHMARKS[name](bench)
    print("", report.text(measures), sep="\n")
    if not arguments.only and not arguments.quick:
        report.write(known, measures)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=BENCHMARKS, help="this one (can be given again); writes no file"
    )
    parser.add_argument("--runs", type=int, metavar="N", help="of what takes a second; default: 9")
    parser.add_argument("--quick", action="store_true", help="only try that all works: 1 run, no file")
    return parser.parse_args()


def _bench(lab: Lab, runs: int | None, *, quick: bool) -> Bench:
    """Start a guest once: what is missing is built, and the accelerator is known."""
    machine = lab.machine("n1")
    try:
        return Bench(lab, lab.images.get("node"), machine.spec.accelerator, runs or (1 if quick else 9), quick)
    finally:
        machine.close()


if __name__ == "__main__":
    sys.exit(main())
