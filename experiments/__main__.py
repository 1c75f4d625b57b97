"""Entry point of the command ``sweetspot``: sets XLA's flags before anything can start JAX."""

from experiments.devices import configure_host_devices

configure_host_devices()

from experiments.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main()
