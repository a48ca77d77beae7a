"""How many steps a stage takes. Torch-free."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The size of a stage. `drop_last`: a rest smaller than a batch is left out, as where statistics are taken across images."""

    samples: int
    batch_size: int
    epochs: int
    seed: int
    max_steps: int | None = None
    drop_last: bool = False

    @property
    def steps_per_epoch(self) -> int:
        whole, rest = divmod(self.samples, self.batch_size)
        return max(1, whole + bool(rest and not self.drop_last))

    @property
    def steps(self) -> int:
        total = self.steps_per_epoch * self.epochs
        return min(total, self.max_steps or total)

    @property
    def planned_epochs(self) -> int:
        """Epochs that are begun: max_steps may end the last one early."""
        return -(-self.steps // self.steps_per_epoch)
