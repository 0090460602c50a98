"""What libraries read when they are imported, here and in worker processes."""

import os
from pathlib import Path

from harmony_app.config import RunConfig


def prepare_environment(config: RunConfig) -> None:
    """Set what libraries read when they are imported, here and in worker processes.

    One ITK thread, because several add in no fixed order; no telemetry; caches in the
    work folder, because HOME may be absent or not writable.
    """
    cache = config.work_dir / 'cache'
    os.environ |= {
        'NO_ET': '1',
        'NIPYPE_NO_ET': '1',
        'ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS': '1',
        'OMP_NUM_THREADS': str(config.omp_nthreads),
        'OPENBLAS_NUM_THREADS': str(config.omp_nthreads),
        'MKL_NUM_THREADS': str(config.omp_nthreads),
        'MPLBACKEND': 'Agg',
        'MPLCONFIGDIR': str(cache / 'matplotlib'),
        'XDG_CACHE_HOME': str(cache),
        # Needed by deterministic matrix products on CUDA.
        'CUBLAS_WORKSPACE_CONFIG': ':4096:8',
    }
    try:
        Path.home()
    except RuntimeError:
        # An id without a name and without HOME: libraries that look for settings there would end.
        os.environ['HOME'] = str(cache)
