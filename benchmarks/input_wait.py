"""Tells from a profile how long a training step waits for its input.

python benchmarks/input_wait.py --profile_dir=runs/voc/train

reads the newest profile that `train.py --profile_steps=20,40` wrote there: the time that the training loop spent in
taking batches, which returns at once where one is ready, beside the time of the whole loop.
"""

import collections
import pathlib

from absl import app, flags

_PROFILE_DIR = flags.DEFINE_string("profile_dir", None, "The train/ folder of a run that was profiled.", required=True)


def operations(profile: pathlib.Path) -> list[tuple[str, int, int]]:
    """The operations that ran on the host: (name, start, end), in picoseconds of one clock."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(profile.read_bytes())
    found = []
    for plane in space.planes:
        if plane.name != "/host:CPU":
            continue
        for line in plane.lines:
            for event in line.events:
                start = line.timestamp_ns * 1000 + event.offset_ps
                found.append((plane.event_metadata[event.metadata_id].name, start, start + event.duration_ps))
    return found


def main(_) -> None:
    """Prints the share of the loop that was spent waiting."""
    profiles = sorted(pathlib.Path(_PROFILE_DIR.value).expanduser().glob("plugins/profile/*/*.xplane.pb"))
    if not profiles:
        raise app.UsageError(f"{_PROFILE_DIR.value} holds no profile; train.py --profile_steps=20,40 writes one")
    found = operations(profiles[-1])
    waits = [(start, end) for name, start, end in found if name.split("#")[0] == "IteratorGetNextOp::DoCompute"]
    if len(waits) < 2:
        raise app.UsageError(f"{profiles[-1]} holds {len(waits)} training steps; profile some more")
    # From the first batch to the last one, so that whole steps are counted.
    steps, first, last = len(waits) - 1, min(waits)[0], max(waits)[0]
    waited = sum(end - start for start, end in sorted(waits)[:-1])
    print(f"{profiles[-1]}: {steps} steps of {(last - first) / 1e9 / steps:.1f} ms")
    print(
        f"waiting for input {waited / 1e9 / steps:.3f} ms a step, {waited / (last - first):.2%} of the time; "
        f"the longest wait {max(end - start for start, end in waits) / 1e9:.3f} ms"
    )
    kinds = collections.Counter()
    for name, start, end in found:
        if ":" in name and "::" not in name:
            kinds[name.split("#")[0].rsplit(":", 1)[1]] += end - start
    print(
        "the operations that took most, ms a step, on all cores: "
        + ", ".join(f"{kind} {time / 1e9 / steps:.1f}" for kind, time in kinds.most_common(6))
    )


if __name__ == "__main__":
    app.run(main)
