"""The environment of a run: everything outside code and data that may change a result."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import msgspec

from clewline.flow.code.packages import distributions
from clewline.store.changes import Change, changes

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "POLARS_MAX_THREADS",
    "OMP_DYNAMIC",
    "OPENBLAS_CORETYPE",
    "MKL_CBWR",
    "NPY_DISABLE_CPU_FEATURES",
)
OTHER_VARIABLES = ("PYTHONHASHSEED", "LANG", "LC_ALL", "TZ")
_SCALARS = ("cpu", "cpus", "platform", "python", "implementation", "libc", "hash_seed", "clewline")


class NumericLibrary(msgspec.Struct, frozen=True, omit_defaults=True):
    """A loaded numeric library that runs its own threads."""

    name: str  # openblas, mkl, libgomp …
    version: str | None
    threads: int
    architecture: str | None = None  # the kernel that OpenBLAS chose for this CPU
    layer: str | None = None

    def __str__(self) -> str:
        parts = (self.version, self.architecture, f"{self.threads} threads")
        return ", ".join(part for part in parts if part is not None)


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that may change the last bit of a result while code, data and seed stay equal."""

    python: str
    implementation: str
    platform: str  # linux-x86_64
    libc: str
    cpu: str
    cpu_features: tuple[str, ...]
    cpus: int  # that this process may use
    libraries: tuple[NumericLibrary, ...]
    distributions: dict[str, str]  # normalised name → version
    clewline: str
    hash_seed: str  # "random" when it was not fixed
    variables: dict[str, str]


def record() -> Environment:
    """
    Record the environment of this process.

    Numeric libraries are visible once they are loaded, so a run records its
    environment after its steps.
    """
    model, features = _processor()
    found = {name: each.version for name, each in sorted(distributions().items())}
    names = (*THREAD_VARIABLES, *OTHER_VARIABLES)
    can_ask = hasattr(os, "sched_getaffinity")
    return Environment(
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        platform=f"{sys.platform}-{platform.machine()}",
        libc="-".join(platform.libc_ver()),
        cpu=model,
        cpu_features=features,
        cpus=len(os.sched_getaffinity(0)) if can_ask else os.cpu_count() or 1,
        libraries=_loaded_libraries(),
        distributions=found,
        clewline=found.get("clewline", "not installed"),
        hash_seed=os.environ.get("PYTHONHASHSEED", "random"),
        variables={name: os.environ[name] for name in names if name in os.environ},
    )


def environment_changes(old: Environment | None, new: Environment | None) -> list[Change]:
    """
    List what differs between two environments; nothing if one of them was not recorded.

    The likeliest causes of another result come first: processor, libraries and
    threads, then packages, then variables.
    """
    if old is None or new is None:
        return []
    scalars = ({name: getattr(side, name) for name in _SCALARS} for side in (old, new))
    features = (dict.fromkeys(side.cpu_features, True) for side in (old, new))
    libraries = ({each.name: str(each) for each in side.libraries} for side in (old, new))
    return [
        *changes("environment", *scalars),
        *changes("CPU feature", *features),
        *changes("library", *libraries),
        *changes("package", old.distributions, new.distributions),
        *changes("variable", old.variables, new.variables),
    ]


def _processor() -> tuple[str, tuple[str, ...]]:
    """Return the model name and the sorted feature flags of the first processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), ()
    lines = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    first = {name.strip(): value.strip() for name, _, value in lines}
    model = first.get("model name") or platform.machine()
    return model, tuple(sorted((first.get("flags") or first.get("Features", "")).split()))


def _loaded_libraries() -> tuple[NumericLibrary, ...]:
    """Return the BLAS and OpenMP libraries in this process with their thread counts."""
    if "numpy" not in sys.modules:
        return ()
    from threadpoolctl import threadpool_info

    found = {
        NumericLibrary(
            name=entry["internal_api"],
            version=entry.get("version"),
            threads=entry["num_threads"],
            architecture=entry.get("architecture"),
            layer=entry.get("threading_layer"),
        )
        for entry in threadpool_info()
    }
    return tuple(sorted(found, key=lambda library: (library.name, str(library.version))))
