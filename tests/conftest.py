"""JAX's settings for the tests: strict, two single-threaded host devices, a compilation cache."""

import os
import signal

from experiments.devices import keep_compiled_programs
from tests import skips
from tests.skips import pytest_addoption  # noqa: F401
from tests.xla_flags import XLA_FLAGS

# Flags of the user come last, and so take precedence.
os.environ["XLA_FLAGS"] = (
    f"{XLA_FLAGS} --xla_force_host_platform_device_count=2 {os.environ.get('XLA_FLAGS', '')}"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Compiled programs are kept in the user's cache folder, for all clones and for the processes that
# tests start: once they are there, tests that compile take about a third of the time.
keep_compiled_programs()
jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR"))
# Keep programs that take this many seconds to compile: several processes need the same ones.
LEAST_COMPILE_SECONDS = 0.1
jax.config.update("jax_persistent_cache_min_compile_time_secs", LEAST_COMPILE_SECONDS)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = str(LEAST_COMPILE_SECONDS)

# No deadline, as the first example compiles; the same examples in every run.
hypothesis.settings.register_profile("sweetspot", deadline=None, derandomize=True, max_examples=25)
hypothesis.settings.load_profile("sweetspot")


def pytest_configure(config: pytest.Config) -> None:
    skips.pytest_configure(config)
    # A shell may have the tests ignore Ctrl-C. The processes that they start must not inherit that.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "slow: needs more than the default install, or minutes")
