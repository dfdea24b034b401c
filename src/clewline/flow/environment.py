"""The environment that a run was made in, recorded without being asked."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

import msgspec

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


class NumericLibrary(msgspec.Struct, frozen=True, omit_defaults=True):
    """A numeric library with threads of its own that the process has loaded."""

    name: str  # openblas, mkl, libgomp …
    version: str | None
    threads: int
    architecture: str | None = None  # the kernel that OpenBLAS chose for this CPU
    layer: str | None = None


class Environment(msgspec.Struct, frozen=True, kw_only=True):
    """What can move the last bit of a result although code, data and seed are the same."""

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

    Numeric libraries are seen once they are loaded, so a run records its
    environment after its steps, not before.
    """
    model, features = processor()
    found = distributions()
    return Environment(
        python=platform.python_version(),
        implementation=platform.python_implementation(),
        platform=f"{sys.platform}-{platform.machine()}",
        libc="-".join(platform.libc_ver()),
        cpu=model,
        cpu_features=features,
        cpus=usable_cpus(),
        libraries=loaded_libraries(),
        distributions=found,
        clewline=found.get("clewline", "not installed"),
        hash_seed=os.environ.get("PYTHONHASHSEED", "random"),
        variables={
            name: os.environ[name]
            for name in THREAD_VARIABLES + OTHER_VARIABLES
            if name in os.environ
        },
    )


def environment_differences(a: Environment, b: Environment) -> list[str]:
    """
    Say in words what differs from environment `a` to environment `b`.

    What is likelier to move a result stands first: processor, libraries and
    threads, then packages, then the rest.
    """
    lines = [f"{label}: {old} → {new}" for label, old, new in scalars(a, b) if old != new]
    lines += moved("CPU feature", dict.fromkeys(a.cpu_features, "yes"), flags(b))
    lines += moved("library", described(a.libraries), described(b.libraries))
    lines += moved("package", a.distributions, b.distributions)
    return lines + moved("variable", a.variables, b.variables)


def scalars(a: Environment, b: Environment) -> list[tuple[str, Any, Any]]:
    """The single-valued parts of two environments, with their names."""
    names = {
        "cpu": "CPU",
        "cpus": "usable CPUs",
        "platform": "platform",
        "python": "Python",
        "implementation": "Python implementation",
        "libc": "C library",
        "hash_seed": "hash seed",
        "clewline": "clewline",
    }
    return [(label, getattr(a, name), getattr(b, name)) for name, label in names.items()]


def flags(environment: Environment) -> dict[str, str]:
    """CPU features as a mapping, so that they are compared as everything else."""
    return dict.fromkeys(environment.cpu_features, "yes")


def described(libraries: tuple[NumericLibrary, ...]) -> dict[str, str]:
    """Name of each library → what matters of it."""
    return {
        library.name: ", ".join(
            str(part)
            for part in (library.version, library.architecture, f"{library.threads} threads")
            if part is not None
        )
        for library in libraries
    }


def moved(what: str, old: dict[str, str], new: dict[str, str]) -> list[str]:
    """A line for each name that came, went or changed."""
    return [
        f"{what} {name}: {old.get(name, 'absent')} → {new.get(name, 'absent')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def processor() -> tuple[str, tuple[str, ...]]:
    """Model name and sorted feature flags of the first processor."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine(), ()
    lines = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    first = {name.strip(): value.strip() for name, _, value in lines}
    model = first.get("model name") or platform.machine()
    return model, tuple(sorted((first.get("flags") or first.get("Features", "")).split()))


def usable_cpus() -> int:
    """How many processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def loaded_libraries() -> tuple[NumericLibrary, ...]:
    """BLAS and OpenMP libraries in this process with their thread counts."""
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


def distributions() -> dict[str, str]:
    """
    Installed distributions, normalised name → version, sorted.

    Read from the names of their metadata folders, which is a hundred times
    quicker than parsing their metadata; the first on the path wins, as in import.
    """
    found: dict[str, str] = {}
    for folder in dict.fromkeys(sys.path):
        for name, version in folder_distributions(folder):
            found.setdefault(name, version)
    return dict(sorted(found.items()))


def folder_distributions(folder: str) -> list[tuple[str, str]]:
    """Name and version of each `NAME-VERSION.dist-info` in one folder."""
    try:
        entries = os.listdir(folder or ".")
    except OSError:
        return []  # sys.path may name zip files and folders that are not there
    stems = [entry[: -len(".dist-info")] for entry in entries if entry.endswith(".dist-info")]
    pairs = [stem.rpartition("-") for stem in sorted(stems)]
    return [(normalised(name), version) for name, dash, version in pairs if dash]


def normalised(name: str) -> str:
    """
    A distribution's name in its normal form.

    >>> normalised("Scikit_Learn")
    'scikit-learn'
    """
    return name.lower().replace("_", "-").replace(".", "-")
