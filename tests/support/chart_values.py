"""Values of the chart: what an installation needs at least, all of it, and combinations in between."""

from __future__ import annotations

from typing import Any

LEAST: dict[str, Any] = {
    "serving": {"existingSecret": "serving"},
    "mlflow": {"existingSecret": "mlflow", "artifacts": "s3://edgewright/mlflow"},
}
CARDIO: dict[str, Any] = {
    "name": "cardio",
    "quota": {"cpu": 32, "memory": "128Gi", "pods": 50, "claims": 5, "storage": "1Ti"},
    "gpus": 2,
    "devices": {"xilinx.com/fpga-vck190": 1},
    "defaults": {"cpu": "500m", "memory": "1Gi", "memoryLimit": "2Gi"},
    "pullSecrets": ["cardio-registry"],
    "egress": [{"cidr": "10.0.0.0/8", "ports": [9000, 443]}],
    "members": [{"kind": "Group", "name": "cardio"}],
}
NEURO: dict[str, Any] = {
    "name": "neuro",
    "quota": {"cpu": 8, "memory": "32Gi", "pods": 10, "claims": 0},
    "defaults": {"cpu": "250m", "memory": "512Mi"},
}
SINK: dict[str, Any] = {
    "name": "requests", "from": "kafka://kafka_default/requests", "to": "cassandra://cassandra_default/features.requests",
    "keep": "30d", "shards": 8, "connections": {"AIRFLOW_CONN_KAFKA_DEFAULT": {"secret": "kafka", "key": "connection"}},
}  # fmt: skip
BRIDGE: dict[str, Any] = {
    "name": "bracelets", "from": "mqtt://broker:1883", "to": "kafka://kafka:9092/bracelets",
    "topics": ["bracelets/+/ecg"], "qos": 2,
}  # fmt: skip
EVERYTHING: dict[str, Any] = {
    "imageRegistry": "registry.example/ml",
    "imagePullSecrets": ["harbor"],
    "commonLabels": {"cost-center": "r-and-d"},
    "store": {"uri": "s3://edgewright/store", "endpoint": "https://minio.example:9000", "existingSecret": "store"},
    "environment": "prod",
    "profiles": {"gpu": {"on": "kubernetes", "image": "step-gpu:1", "resources": {"nvidia.com/gpu": 1}}},
    "serving": {
        "existingSecret": "serving", "models": ["bracelet@champion", "wine"], "priorityClassName": "web",
        "featureLog": {"to": "kafka://kafka_default/requests", "durable": True, "connectionSecret": "kafka"},
        "ingress": {"enabled": True, "className": "nginx", "host": "predict.example", "tlsSecret": "predict-tls"},
        "autoscaling": {"enabled": True, "minReplicas": 3},
        "nodeSelector": {"zone": "a"}, "tolerations": [{"operator": "Exists"}],
    },
    "mlflow": {
        "existingSecret": "mlflow", "artifacts": "s3://edgewright/mlflow",
        "authSecret": "auth", "clientSecret": "login", "replicas": 2, "allowedHosts": ["mlflow.example"],
    },
    "sinks": [SINK, {**SINK, "name": "other", "replicas": 3}],
    "bridges": [BRIDGE],
    "steps": {"launchers": [{"name": "airflow-worker", "namespace": "airflow"}, {"name": "airflow-triggerer"}]},
    "sandboxes": [CARDIO, NEURO],
}  # fmt: skip


def over(base: Any, more: Any) -> Any:
    """Return values with more of them put over, as Helm does it."""
    if not (isinstance(base, dict) and isinstance(more, dict)):
        return more
    return {**base, **{key: over(base.get(key), value) for key, value in more.items()}}


#: By name: values over the least ones.
COMBINATIONS: dict[str, dict[str, Any]] = {
    "least": {},
    "everything": EVERYTHING,
    "mlflow-elsewhere": {"mlflow": {"enabled": False}, "trackingUri": "https://mlflow.example"},
    "only-sandboxes": {"serving": {"enabled": False}, "mlflow": {"enabled": False}, "trackingUri": "https://m.example",
                       "steps": {"enabled": False}, "sandboxes": [NEURO]},
    "open-predictions": {"serving": {"openPredictions": True, "replicas": 1, "serviceMonitor": {"enabled": False}}},
    "no-walls": {"networkPolicy": {"enabled": False}, "dashboards": {"enabled": False}, "tests": {"enabled": False}},
    "own-namespace": {"sandboxes": [{**CARDIO, "namespace": "team-cardio", "createNamespace": False}]},
    "digest": {"serving": {"image": {"digest": "sha256:" + "a" * 64}}, "fullnameOverride": "ml"},
    "long-names": {"fullnameOverride": "x" * 60, "sinks": [SINK], "bridges": [BRIDGE]},
    "kubernetes-shapes": {"extraEnv": [{"name": "SSL_CERT_FILE", "value": "/ca/ca.crt"}],
                          "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
                          "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}],
                          "serving": {"affinity": {"nodeAffinity": {}}, "service": {"type": "LoadBalancer"}}},
}  # fmt: skip
#: What is refused, and with which words.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"serving": {"existingSecret": ""}}, "the chart makes no passwords"),
    ({"mlflow": {"existingSecret": ""}}, "backend-store-uri"),
    ({"mlflow": {"enabled": False}}, "MLflow's address is needed"),
    ({"serving": {"ingress": {"enabled": True, "host": "p.example"}}}, "the ingress needs a TLS Secret"),
    ({"serving": {"autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}}}, "is more than maxReplicas"),
    ({"sandboxes": [NEURO, NEURO]}, "is there twice"),
    ({"serving": {"adminPassword": "secret"}}, "adminPassword"),
    ({"servng": {}}, "servng"),
    ({"serving": {"replicas": -1}}, "replicas"),
    ({"serving": {"models": ["bracelet@"]}}, "models"),
    ({"serving": {"image": {"digest": "latest"}}}, "digest"),
    ({"store": {"uri": "bucket"}}, "uri"),
    ({"sandboxes": [{**NEURO, "quota": {"cpu": "lots", "memory": "1Gi", "pods": 1, "claims": 0}}]}, "cpu"),
    ({"sandboxes": [{**NEURO, "name": "Neuro Lab"}]}, "name"),
    ({"sandboxes": [{**NEURO, "devices": {"nvidia.com/gpu": 1}}]}, "nvidia.com/gpu"),
    ({"sandboxes": [{"name": "neuro"}]}, "quota"),
    ({"sandboxes": [{**NEURO, "egress": [{"cidr": "everywhere"}]}]}, "cidr"),
    ({"bridges": [{**BRIDGE, "topics": []}]}, "topics"),
    ({"sinks": [{**SINK, "keep": "forever"}]}, "keep"),
    ({"profiles": {"gpu": {"on": "mars"}}}, "profiles"),
]
