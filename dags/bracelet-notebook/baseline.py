"""A script as it stands in many a repository: options in, a model and its numbers out."""

import argparse
import json
import os
from pathlib import Path

import joblib
import pandas as pd
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

options = argparse.ArgumentParser()
options.add_argument("--csv", required=True)
options.add_argument("--C", type=float, default=1.0)
options.add_argument("--balanced", action="store_true")
given = options.parse_args()

rows = pd.read_csv(given.csv)
X, y = rows.drop(columns="num"), rows["num"]
regression = LogisticRegression(C=given.C, class_weight="balanced" if given.balanced else None)
model = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), regression)
score = cross_val_score(model, X, y, scoring="roc_auc").mean()
print(f"ROC AUC in five folds: {score:.3f}")

output = Path(os.environ.get("EDGEWRIGHT_OUTPUT", "."))
joblib.dump(model.fit(X, y), output / "model.joblib")
(output / "metrics.json").write_text(json.dumps({"cv_roc_auc": score}))
