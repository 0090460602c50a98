"""What a step says that could not write down itself how it failed, and what that means in words."""

import re
from pathlib import Path

from harmony_app import errors
from harmony_app.errors import ExitCode

DEVICE_FULL = 'the accelerator has too little memory'
"""How the message begins where fewer slices at a time did not help."""

KILLED = 'the worker of this step was killed, perhaps for memory'
"""Message of a step whose process the system ended."""

TIMEOUT = 'the step did not end within {:g} minutes (--step-timeout) and was stopped'
"""Message of a step that hangs."""

MORE_MEMORY = 'give it more, or fewer --nprocs, --low-mem or a smaller --batch-size'

REASONS = (
    (
        DEVICE_FULL,
        f'{DEVICE_FULL}: give --device cpu or auto',
        ExitCode.RETRY,
    ),
    (
        KILLED,
        f'a step was killed, most often for memory: {MORE_MEMORY}',
        ExitCode.RETRY,
    ),
    ('--step-timeout', 'a step did not end within --step-timeout and was stopped', ExitCode.RETRY),
    (
        'No space left on device|Disk quota exceeded',
        'the disk of --work-dir or of the results is full',
        ExitCode.IO_ERROR,
    ),
    (
        r'MemoryError|bad_alloc|OutOfMemory|DefaultCPUAllocator|Cannot allocate memory',
        f'memory ran out: {MORE_MEMORY}',
        ExitCode.RETRY,
    ),
)
"""What a crash file may say, what that means, and the exit code where it is all that happened."""


def reason_of(crash: str) -> tuple[str, ExitCode]:
    """What a crash file tells in words that a user can act on, and the exit code for it."""
    try:
        text = Path(crash).read_text(encoding='utf-8', errors='replace')
    except OSError:
        return '', ExitCode.FAILURE
    for pattern, words, code in REASONS:
        if re.search(pattern, text):
            return f' ({words})', code
    # An error for users that a step could not write down: it says itself what to do.
    told = re.search(r'^\s*harmony_app\.errors\.(\w+): (.+)$', text, re.MULTILINE)
    if told:
        kind = getattr(errors, told[1], errors.HarmonyError)
        return f' ({told[2]})', kind.exit_code
    return '', ExitCode.FAILURE
