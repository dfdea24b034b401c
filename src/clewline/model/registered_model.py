"""A registered version that answers tables in Python, from the sealed bytes that servers load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from clewline.errors import NotSupported
from clewline.model.package import Package
from clewline.model.registry import Registry, load_predictor
from clewline.model.runtime.outputs import Outputs
from clewline.project import find
from clewline.signature import dataframes
from clewline.signature.check import Checker
from clewline.signature.field import Signature
from clewline.store.store import Store

if TYPE_CHECKING:
    import polars as pl


def load(ref: str, *, project: str | Path | None = None) -> RegisteredModel:
    """
    Load a registered version, to ask it in Python what a server would answer.

    Args:
        ref: `income@3`, `income@champion`, or `income` for the newest.
        project: A folder of the project; by default the current directory's.

    Raises:
        NotFound: There is no such project or version.
        IntegrityError: The package is not what was registered.
        NotSupported: The version transforms tables; or its library is not installed.

    Example:
        `cl.load("income@champion").predict(frame)`
    """
    found = find(Path(project) if project is not None else None)
    with Store.open(found.store_root, write=False) as store:
        return RegisteredModel(Registry(found, store).open(ref))


class RegisteredModel:
    """
    A version that answers tables as a scikit-learn model does. A context manager.

    `predict_proba` and `classes_` are there if the version has probabilities and labels. Not to
    be called from several threads at once.
    """

    predict_proba: Any
    classes_: NDArray[np.object_]

    def __init__(self, package: Package) -> None:
        if package.signature.output.task == "transform":
            raise NotSupported(
                f"{package.manifest.ref} transforms tables and predicts nothing.",
                "Load a version of a model.",
            )
        self.ref: str = package.manifest.ref
        self.signature: Signature = package.signature
        self._checker = Checker(package.signature)
        self._model = load_predictor(package)
        output = package.signature.output
        if output.labels is not None:
            self.classes_ = np.array(output.labels, dtype=object)
            if output.has_probabilities:
                self.predict_proba = self._predict_proba

    def __repr__(self) -> str:
        return f"RegisteredModel({self.ref!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model's memory; may be called twice."""
        self._model.close()

    def predict(self, frame: Any) -> NDArray[Any]:
        """
        Answer the rows of a table.

        Args:
            frame: A Polars, pandas or Arrow table of n rows; other columns than the fields of
                the signature are ignored.

        Returns:
            Labels or values, shape (n,); for a model that answers with arrays, shape (n, …).

        Raises:
            InvalidInput: A column is missing, or a value is none of its field; names them.
            ModelFailed: The model raised.
        """
        outputs = self.answer(frame)
        if outputs.tensor is not None:
            return outputs.tensor
        if outputs.values is not None:
            return outputs.values
        assert outputs.choices is not None
        labels: NDArray[Any] = self.classes_[outputs.choices]
        return labels

    def answer(self, frame: Any) -> Outputs:
        """Answer the rows of a table with all that the model gives; raises as `predict` does."""
        table = dataframes.open_table(frame)
        names = [field.name for field in self.signature.fields]
        for name in names:
            dataframes.require_column(table, name)
        return self._model.predict(self._checker.table(table.select(names).to_native()).columns)

    def answer_table(self, frame: Any) -> pl.DataFrame:
        """
        Answer the rows of a table with a table, in the same order.

        Returns:
            `label` and `probability of LABEL` for each label, or `value`; of a model that answers
            with arrays, `values`. Raises as `predict` does.
        """
        import polars as pl

        outputs = self.answer(frame)
        if outputs.tensor is not None:
            return pl.DataFrame({"values": outputs.tensor.tolist()})
        if outputs.values is not None:
            return pl.DataFrame({"value": outputs.values})
        assert outputs.choices is not None
        columns: dict[str, Any] = {"label": self.classes_[outputs.choices].tolist()}
        if outputs.probabilities is not None:
            for place, label in enumerate(self.classes_):
                columns[f"probability of {label}"] = outputs.probabilities[:, place]
        return pl.DataFrame(columns)

    def _predict_proba(self, frame: Any) -> NDArray[np.float64]:
        """Return the probability of each label, shape (n, labels); raises as `predict` does."""
        probabilities = self.answer(frame).probabilities
        assert probabilities is not None, "the signature says that there are some"
        return probabilities
