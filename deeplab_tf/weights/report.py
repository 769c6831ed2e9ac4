"""Report of `load`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """Report of `load`: which layers were taken, left, initialised; `print` it.

    Attributes:
        source: as given to `load`.
        kind: what that was, in words.
        taken: names of the model's layers that now have the source's weights.
        left: names of the source's layers that the model has no use for.
        initialised: names of the model's layers that keep their values, each with the reason.
        classes: of the source's classifier; None where it has none for this head.
        preprocessing: style of the colour statistics of the model.
        notes: further things to know.
    """

    source: str
    kind: str
    taken: tuple[str, ...]
    left: tuple[str, ...]
    initialised: dict[str, str]
    classes: int | None
    preprocessing: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"weights      {self.source} ({self.kind})", f"taken        {listed(self.taken)}"]
        if self.left:
            lines.append(f"left         {listed(self.left)}")
        reasons = dict.fromkeys(self.initialised.values())
        lines += [
            f"initialised  {listed([n for n, r in self.initialised.items() if r == why])}: {why}" for why in reasons
        ]
        lines.append(f"preprocessing  {self.preprocessing}")
        return "\n".join([*lines, *(f"note         {note}" for note in self.notes)])


def listed(names) -> str:
    """`104 layers: a, b, c, ..., z`, or all where they are few."""
    names = list(names)
    shown = names if len(names) <= 6 else [*names[:3], "...", *names[-2:]]
    return f"{len(names)} layer{'s' * (len(names) != 1)}{': ' * bool(names)}{', '.join(shown)}"
