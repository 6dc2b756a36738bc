"""What a row must look like: codes and ranges of the UCI description, a little wider where people differ."""

from __future__ import annotations

import pandera.pandas as pa

Bracelet = pa.DataFrameSchema(
    {
        "age": pa.Column(float, pa.Check.in_range(18, 110), coerce=True, description="years"),
        "sex": pa.Column(float, pa.Check.isin([0, 1]), coerce=True, description="1 male"),
        "cp": pa.Column(float, pa.Check.isin([1, 2, 3, 4]), coerce=True, description="kind of chest pain"),
        "trestbps": pa.Column(float, pa.Check.in_range(60, 260), coerce=True, description="blood pressure, mm Hg"),
        "chol": pa.Column(float, pa.Check.in_range(80, 700), coerce=True, description="cholesterol, mg/dl"),
        "fbs": pa.Column(float, pa.Check.isin([0, 1]), coerce=True, description="blood sugar above 120 mg/dl"),
        "restecg": pa.Column(float, pa.Check.isin([0, 1, 2]), coerce=True, description="electrocardiogram at rest"),
        "thalach": pa.Column(float, pa.Check.in_range(50, 230), coerce=True, description="highest heart rate"),
        "exang": pa.Column(float, pa.Check.isin([0, 1]), coerce=True, description="chest pain by exercise"),
        "oldpeak": pa.Column(float, pa.Check.in_range(0, 8), coerce=True, description="ST depression, mm"),
        "slope": pa.Column(float, pa.Check.isin([1, 2, 3]), coerce=True, description="slope of the ST segment"),
        "ca": pa.Column(
            float, pa.Check.isin([0, 1, 2, 3]), nullable=True, coerce=True, description="vessels seen by fluoroscopy"
        ),
        "thal": pa.Column(float, pa.Check.isin([3, 6, 7]), nullable=True, coerce=True, description="thallium scan"),
        "num": pa.Column(int, pa.Check.isin([0, 1]), description="1 sick"),
    },
    strict=True,
)
