"""`python -m cnnjepa.ablations.trial_process` runs one trial. Signals and streams are set up first, torch is imported
after them."""

from cnnjepa import signals, telling


def main() -> None:
    """Run the trial that the arguments name (see `cnnjepa.ablations.trial_runner`)."""
    signals.listen()
    telling.unbreakable_streams()
    from cnnjepa.ablations.trial_runner import main as run

    run()


if __name__ == "__main__":
    main()
