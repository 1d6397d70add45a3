"""Measurement of the training speed."""

from cnnjepa.training.state import RunState


class ThroughputMeter:
    """Measures images per second over the steps since it was last read or restarted."""

    def __init__(self, state: RunState, images_per_step: int) -> None:
        self._state, self._images_per_step = state, images_per_step
        self.restart()

    def restart(self) -> None:
        """Start a new interval after the state's step."""
        self._step, self._seconds = self._state.step, self._state.train_seconds

    def read(self) -> float:
        """Return the images per second of the interval, and start a new one."""
        images = (self._state.step - self._step) * self._images_per_step
        rate = images / (self._state.train_seconds - self._seconds)
        self.restart()
        return rate
