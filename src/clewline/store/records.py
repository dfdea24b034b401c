"""
The records of the catalog: one frozen struct for each kind.

A field in `KEYS` is part of the record's identity. Times are seconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec

from clewline.store.digest import Digest, digest_bytes

RunStatus = Literal["running", "done", "failed", "interrupted"]
StepStatus = Literal["running", "done", "cached", "failed", "interrupted"]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the catalog."""

    KEYS: ClassVar[tuple[str, ...]] = ("id",)
    REFERENCES: ClassVar[tuple[tuple[tuple[str, ...], str], ...]] = ()
    """Fields that hold the keys of another kind of record."""
    INDEXES: ClassVar[tuple[tuple[str, ...], ...]] = ()
    ON_CONFLICT: ClassVar[Literal["replace", "ignore", "refuse"]] = "refuse"
    """What happens where the keys are taken: the newer record replaces the other, is ignored
    because it says the same, or is refused if it holds something else."""
    SEALED: ClassVar[bool] = False
    """Whether the signed chain holds the digest of each record of this kind."""
    UNSEALED_FIELDS: ClassVar[tuple[str, ...]] = ()
    """Fields of a sealed kind that the digest leaves out."""


class Artifact(Record, frozen=True, kw_only=True):
    """A value under the digest of its logical content, and the blob that holds its bytes."""

    KEYS = ("digest",)
    INDEXES = (("blob",), ("kind", "created"))
    ON_CONFLICT = "ignore"

    digest: Digest
    kind: str  # table, array, json, model, file, tree, figure
    format: str  # how the blob is to be read: "polars-ipc", "pandas-ipc", "npy", "skops" …
    blob: Digest
    size_bytes: int
    rows: int | None = None
    columns: int | None = None
    meta: dict[str, Any] = {}
    created: float


class Run(Record, frozen=True, kw_only=True):
    """One execution of a pipeline."""

    INDEXES = (
        ("started", "pipeline", "status"),  # a list of runs is filtered from this index alone
        ("pipeline", "started"),
        ("status",),
        ("snapshot",),
    )
    ON_CONFLICT = "replace"

    id: str
    pipeline: str
    status: RunStatus
    params: dict[str, Any] = {}
    seed: int | None = None
    metrics: dict[str, float] = {}
    command: str = ""
    snapshot: Digest | None = None  # blob: the code snapshot
    environment: Digest | None = None  # blob: distributions, Python, platform, CPU, threads
    commit: str | None = None
    changed: list[str] = []  # first-party files that differ from the commit
    error: dict[str, Any] | None = None
    replay_of: str | None = None
    process: str = ""  # who runs it: host, pid and start time, so that a dead run is noticed
    started: float
    ended: float | None = None


class RunValue(Record, frozen=True, kw_only=True):
    """
    A parameter or a metric of a run, so that runs are filtered and sorted without reading them.

    The catalog keeps these beside each run.
    """

    KEYS = ("kind", "name", "run")
    REFERENCES = ((("run",), "Run"),)
    ON_CONFLICT = "replace"

    kind: Literal["metric", "param"]
    name: str  # of a parameter within another: model.depth
    run: str
    number: float | None = None  # unless it is NaN or no number
    text: str | None = None  # unless it is a number; its first 1,000 characters


class StepRun(Record, frozen=True, kw_only=True):
    """One call of a step inside a run."""

    REFERENCES = ((("run",), "Run"),)
    INDEXES = (("run", "index"), ("name", "started"), ("key",), ("cached_from",))
    ON_CONFLICT = "replace"

    id: str  # RUN/INDEX-NAME, such as 4f9a2c81d0be/03-fit
    run: str
    index: int
    name: str
    function: str = ""  # module:qualname
    status: StepStatus
    key: str | None = None
    uncacheable: str | None = None  # the reason, when there is no key
    cached_from: str | None = None  # the step run whose outputs were taken
    inputs: dict[str, Any] = {}  # parameter → {"artifact": …, "from": "STEP#0"} or {"value": …}
    outputs: list[Digest] = []
    metrics: dict[str, float] = {}
    files: dict[str, Digest] = {}  # cl.log_artifact and cl.log_figure: name → artifact
    logs: Digest | None = None  # blob: captured stdout, stderr and logging
    wall_s: float | None = None
    cpu_s: float | None = None
    peak_bytes: int | None = None
    energy_j: float | None = None
    error: dict[str, Any] | None = None
    started: float
    ended: float | None = None

    @property
    def label(self) -> str:
        """The name within its run, such as 03-fit."""
        return self.id.partition("/")[2]


class CacheEntry(Record, frozen=True, kw_only=True):
    """The outputs that a step key stands for."""

    KEYS = ("key",)
    REFERENCES = ((("step_run",), "StepRun"),)
    INDEXES = (("function", "created"), ("step_run",))
    ON_CONFLICT = "replace"

    key: str
    function: str  # module:qualname, to find the nearest earlier key
    step_run: str
    outputs: list[Digest]
    parts: Digest  # blob: the parts of the key, for `cache explain`
    created: float


class ModelVersion(Record, frozen=True, kw_only=True):
    """A sealed package, `name@number`. Never changes."""

    KEYS = ("name", "number")
    SEALED = True
    REFERENCES = ((("run",), "Run"),)
    INDEXES = (("run",), ("package",), ("created",))

    name: str
    number: int
    package: Digest  # root digest of the sealed package
    content: Digest  # of model, signature and profile alone: equal whenever they are, in any run
    run: str | None
    step_run: str | None
    task: str  # binary, multiclass, regression
    runtime: str  # onnx, sklearn
    metrics: dict[str, float] = {}
    equality: dict[str, Any] = {}  # summary of the record: {"verified": true, "rows": 4133, …}
    size_bytes: int
    created: float

    @property
    def ref(self) -> str:
        """Its reference: `income@3`."""
        return f"{self.name}@{self.number}"


class Alias(Record, frozen=True, kw_only=True):
    """A movable name on a model version."""

    KEYS = ("name", "alias")
    SEALED = True
    REFERENCES = ((("name", "number"), "ModelVersion"),)
    ON_CONFLICT = "replace"

    name: str
    alias: str
    number: int
    moved: float


class ChainEntry(Record, frozen=True, kw_only=True):
    """One link of the signed chain: a change of sealed records, or closed files of the log."""

    KEYS = ("seq",)

    seq: int  # from 1, without gaps
    previous: Digest
    digest: Digest  # of previous and body
    kind: str  # registered, promoted, applied, rolled_back, token_added, …
    body: dict[str, Any]  # with the digests of the sealed records, by their names
    created: float
    signature: str = ""  # base64, of the digest, by the project's key


class Revision(Record, frozen=True, kw_only=True):
    """One resolved, pinned state of an endpoint, `endpoint#number`."""

    KEYS = ("endpoint", "number")
    SEALED = True
    INDEXES = (("created",),)

    endpoint: str
    number: int
    spec: dict[str, Any]  # the YAML as it was read
    models: dict[str, str]  # node → name@number
    packages: dict[str, Digest]  # name@number → package
    accepted: dict[str, Any] = {}  # bounds that a person has accepted, pinned
    graph: dict[str, Any] = {}  # the resolved tree of nodes; empty in revisions of one model
    code: Digest | None = None  # blob: snapshot of the code that the graph's functions are in
    created: float

    @property
    def ref(self) -> str:
        """Its reference: `income#12`."""
        return f"{self.endpoint}#{self.number}"


class LiveRevision(Record, frozen=True, kw_only=True):
    """Which revision an endpoint answers with."""

    KEYS = ("endpoint",)
    SEALED = True
    UNSEALED_FIELDS = ("moved", "unloaded")  # a server without the private key writes these
    REFERENCES = ((("endpoint", "number"), "Revision"),)
    INDEXES = (("moved",),)
    ON_CONFLICT = "replace"

    endpoint: str
    number: int
    moved: float
    unloaded: bool = False  # by an operator: not answered until it is loaded again

    @property
    def ref(self) -> str:
        """The reference of the revision: `income#12`."""
        return f"{self.endpoint}#{self.number}"


class Token(Record, frozen=True, kw_only=True):
    """The token of a caller beyond loopback; the catalog keeps only the digest of its secret."""

    SEALED = True
    ON_CONFLICT = "replace"

    id: str  # public: 12 hex characters
    digest: str  # BLAKE3 of the secret
    roles: list[str]  # predict, review, operate
    note: str = ""  # whose it is
    created: float
    expires: float | None = None
    revoked: float | None = None


class RouterState(Record, frozen=True, kw_only=True):
    """The state that a router of an endpoint has learned by one moment. Never changes."""

    KEYS = ("endpoint", "node", "number")

    endpoint: str
    node: str
    number: int  # from 1
    content: dict[str, Any]
    created: float


class ExplanationRecord(Record, frozen=True, kw_only=True):
    """
    An explanation of a prediction. Never changes.

    Its id is a digest of the question, so that whoever is second finds it there.
    """

    INDEXES = (("prediction",), ("model",), ("revision",), ("created",))
    ON_CONFLICT = "ignore"

    id: str
    prediction: str
    kind: str  # attributions, counterfactuals, …
    options: dict[str, Any] = {}  # every option of the kind
    model: str  # income@3
    package: str  # its digest
    revision: str  # income#12
    status: str  # such as exact or found
    content: Digest  # of the body
    body: dict[str, Any]  # the explanation, without any time
    made_by: str  # clewline 1.0: the distribution of the explainer
    created: float
    seconds: float  # that it took

    @property
    def is_changed(self) -> bool:
        """Whether the body is not that which was stored."""
        return digest_explanation(self.body) != self.content


def digest_explanation(body: Mapping[str, Any]) -> Digest:
    """Digest the body of an explanation."""
    return digest_bytes(msgspec.msgpack.encode(body, order="deterministic"))


class Edge(Record, frozen=True, kw_only=True):
    """`source` took part in making `target`; both are nodes as `store.edges` writes them."""

    KEYS = ("source", "target", "role")
    INDEXES = (("target",),)
    ON_CONFLICT = "ignore"

    source: str
    target: str
    role: str


class ArtifactUse(Record, frozen=True, kw_only=True):
    """
    An artifact as input or output of a step run, so that `why` and `impact` can begin at it.

    The catalog adds it with each step run.
    """

    KEYS = ("artifact", "step_run", "role")
    REFERENCES = ((("step_run",), "StepRun"),)
    INDEXES = (("step_run",),)
    ON_CONFLICT = "ignore"

    artifact: Digest
    step_run: str
    role: str  # input:PARAM, output:POSITION, file:NAME


class SeenFile(Record, frozen=True, kw_only=True):
    """A path that a run read as a content input, so that `why` and `impact` can begin at a path."""

    KEYS = ("path", "digest", "run")
    REFERENCES = ((("run",), "Run"),)
    INDEXES = (("digest",), ("run",))
    ON_CONFLICT = "ignore"

    path: str  # absolute, as resolved
    digest: Digest
    run: str


KINDS: tuple[type[Record], ...] = tuple(Record.__subclasses__())


def is_utf8(value: str) -> bool:
    """
    Return whether UTF-8, and so a record, can hold a string; names of files may hold other bytes.

    >>> is_utf8("café"), is_utf8("caf\\udce9")
    (True, False)
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
