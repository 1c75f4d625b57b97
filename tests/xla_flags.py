"""XLA's flags for the tests, in all of their processes."""

# Level 0 compiles several times as fast as the default, and its programs are fast enough for tests.
XLA_FLAGS = (
    "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0 "
    "--xla_cpu_enable_concurrency_optimized_scheduler=false"
)
