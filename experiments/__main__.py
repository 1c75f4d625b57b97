"""Entry point of the command ``sweetspot``: signals and XLA's flags come before all imports."""

from experiments.interrupts import catch_signals

catch_signals()

from experiments.devices import configure_host_devices, keep_compiled_programs  # noqa: E402

configure_host_devices()
keep_compiled_programs()

from experiments.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
