"""What the prompts' text alone tells: its length, and its words. A readout of the model has to beat both."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diascope.audits.cases import Case


def scores(cases: Sequence[Case], y: np.ndarray, train: np.ndarray) -> dict[str, np.ndarray]:
    """A score of every case [n] by each baseline, fitted on the training cases (bool [n]) with labels y."""
    texts = ["\n".join(m["content"] for m in c.messages) for c in cases]
    length = np.array([len(t) for t in texts], np.float64)
    sign = 1.0 if length[train & y].mean() >= length[train & ~y].mean() else -1.0
    return {"length": sign * length, "words": _words(texts, y, train)}


def _words(texts: Sequence[str], y: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Logistic regression on TF-IDF of words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectoriser = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b")
    rows = vectoriser.fit_transform([t for t, inside in zip(texts, train, strict=True) if inside])
    model = LogisticRegression(C=10.0, max_iter=1000, class_weight="balanced").fit(rows, y[train])
    return model.decision_function(vectoriser.transform(texts))
